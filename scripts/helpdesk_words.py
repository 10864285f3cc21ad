"""Word banks of the bundled ``helpdesk`` tickets: products, symptoms, cues of urgency, small talk, slots.

Notable: ``a|b`` is a choice, ``[a|b]`` one inside a sentence; a block between triple quotes holds one sentence a line.
"""

# The mentions that give each product away; the first word of each list is the label itself or close to it.
PRODUCTS: dict[str, str] = {
    "router": "router|wifi router|modem|wifi box|mesh hub|internet box|Lumo R2|R2 router|wireless hub",
    "laptop": "laptop|notebook|ultrabook|Arden 14|Arden notebook|portable computer|work computer",
    "headphones": (
        "pair of headphones|headset|earbud set|Sona Buds set|pair of earbuds|noise cancelling headset|Sona headset"
    ),
    "printer": "printer|inkjet|laser printer|Pello 300|all-in-one printer|printing machine|Pello inkjet",
    "camera": "camera|doorbell cam|security camera|Vigo cam|outdoor camera|surveillance cam|Vigo camera",
    "thermostat": (
        "thermostat|heating controller|Calor T1|smart thermostat|heating dial|room temperature control|Calor unit"
    ),
    "watch": "watch|smartwatch|fitness band|fitness tracker|Tempo 5|wrist tracker|Tempo band",
    "tablet": "tablet|Folio 10|drawing tablet|Folio tab|touchscreen pad|slate computer|kids tablet",
}

# Symptoms that belong to one product; they follow a fault, a warranty claim or a refund.
SYMPTOMS: dict[str, str] = {
    "router": (
        "the wifi drops every [hour|evening|few minutes]|no room gets a signal any more|"
        "all [lights|LEDs] blink red|the 5 GHz network vanished"
    ),
    "laptop": (
        "the fan screams and the keyboard gets hot|the screen stays black after the logo|"
        "the hinge is loose|it shuts down at 40 percent battery"
    ),
    "headphones": (
        "the left ear is silent|there is a loud hiss|the microphone cuts out in [calls|meetings]|"
        "bluetooth pairs and drops again"
    ),
    "printer": (
        "every page comes out striped|it jams on the [first|second] sheet|"
        "it says the cartridge is empty though it is new|scanning gives blank files"
    ),
    "camera": (
        "the night picture is all purple|no clips are recorded|motion alerts come [an hour|minutes] late|"
        "the lens is foggy from inside"
    ),
    "thermostat": (
        "the heating runs all night|the display shows 35 degrees in a cold room|it forgets the schedule|"
        "the radiators stay cold"
    ),
    "watch": (
        "the steps stay at zero|the strap pin fell out|the pulse reading is nonsense|"
        "the battery lasts [two|three] hours"
    ),
    "tablet": (
        "the touchscreen ignores my finger in one corner|the pen is not recognised|the screen flickers|"
        "it reboots in the middle of films"
    ),
}

# The rule of urgency: a cue of the first bank makes it high, of the second low; no cue means normal.
URGENT = """
This is [urgent|very urgent].
I need [an answer|a solution|help] [today|by tonight|before noon].
[Please hurry|Hurry please], we [fly|leave] tomorrow morning.
Our whole office [stands still|cannot work] because of this.
[As soon as possible please|asap please|Please act at once].
I have an exam on it [tomorrow|in the morning] and cannot wait.
My [baby|mother] depends on it, so every hour counts.
It has to be solved [right now|immediately|within the hour].
I lose [money|customers] every hour.
This is an emergency.
The deadline is [tonight|tomorrow at nine].
Call me back straight away.
I cannot wait any [longer|more days], do something now.
If this is not settled by tomorrow I go to a lawyer.
Smoke came out, I am afraid of a fire, answer at once.
Top priority please.
"""
RELAXED = """
[No rush|There is no hurry|No hurry at all].
It is not urgent.
Whenever you [have time|find a moment].
Take your time.
[Next week|Next month|Some day] is fine too.
It can wait until [after the holidays|you are less busy].
Just [asking|curious|wondering].
It does not matter much to me when.
I am away for a while anyway, so answer at your leisure.
Nothing pressing.
Low priority from my side.
I can live with it for now.
A reply in a few weeks is good enough.
No need to answer quickly.
"""

GREETINGS = (
    "hi|hello|hello there|dear team|dear support|good morning|good evening|hey|dear sir or madam|"
    "hi team|to whom it may concern|"
    "hello help desk|good day|greetings|hi folks|hey guys|dear customer service|hello again|hi support"
)
SIGN_OFFS = (
    "thanks|thank you|best regards, {person}|cheers|kind regards, {person}|regards|many thanks|"
    "yours, {person}|{person}|"
    "thanks in advance|best, {person}|thx|greetings from {city}|bye|sincerely, {person}|"
    "hope to hear from you|ty {person}"
)
ABOUT = """
[It is about|This concerns|I write about|I am writing because of] [the|my] {p}.
I have [had|owned] the {p} [for {age}|since {when}].
[The|My] {p} is {age} old.
I bought the {p} {when} [|in {city}|on your site].
Subject: {p}, {order}.
Customer of yours [for {age}|since {when}], product: {p}.
We use the {p} [at work|at home|in our shop|in {city}].
I got the {p} [as a present|from {person}|in your sale] {when}.
Question on the {p} [here|again].
"""
# Sentences that must not change the answer. {q} is another product than the one the ticket is about.
DISTRACTORS = """
My old {q} from you still works [well|like new|fine].
The {q} I bought {when} was no trouble at all.
[My|Our] {q} arrived on time by the way.
Your [site|app] is otherwise [nice|quite good|a bit confusing].
I had to wait [half an hour|an hour|ages] in the phone queue.
The weather in {city} has been awful.
{person} from your team was [very kind|helpful|rude] last time.
I am not good with [computers|technology|long mails].
Your chat bot [was useless|sent me in circles|knew nothing].
I already [read|searched] the FAQ.
A friend has the {q} and loves it.
I paid by [card|invoice|transfer] as always.
I also [got|get] your newsletter, which I like.
I wrote to you {when} about [something else|the {q}] and that was solved.
Maybe I will buy the {q} as well one day.
Sorry for my English.
My last refund came quickly, so I trust you.
The delivery of the {q} last year was late, but never mind.
The last time I forgot my password you helped in a minute.
I [wrote|sent] this from my phone.
"""
GENERIC = "device|thing|item|product|unit"
SLOTS: dict[str, str] = {
    "when": (
        "last week|on Monday|on Tuesday|on Friday|yesterday|three weeks ago|in March|in May|"
        "two months ago|on Saturday|last month|"
        "ten days ago|on the 3rd|on the 14th|on the 28th|before Easter|in early June|in autumn|"
        "a fortnight ago|last Thursday"
    ),
    "age": (
        "six weeks|three months|half a year|ten months|a year|two years|fourteen months|a few weeks|"
        "five months|nearly two years"
    ),
    "person": (
        "Ana|Mr Olsen|Priya|Tom|Mrs Keller|Jun|Fatima|Lukas|Ms Okoro|Ben|Elena|Mr Haddad|Sofia|Dr Novak|"
        "Mia|Mr Tanaka|Ivan|Lea|"
        "Mrs Silva|Noah|Amira|Jonas|Mr Byrne|Chloe|Pavel"
    ),
    "city": (
        "Leeds|Porto|Ghent|Turin|Malmo|Graz|Lyon|Cork|Basel|Tartu|Bergen|Nantes|Seville|Utrecht|Bologna|"
        "Krakow|Dresden|York|Aarhus"
    ),
}
