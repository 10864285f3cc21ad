"""What customers of the bundled ``helpdesk`` set say, written for this project: situations and asks.

Notable: one template a line. ``[a|b]`` picks one alternative (which may be empty, and may nest), ``{p}`` stands for a
mention of the product; ``{when} {amount} {order} {person} {city} {age}`` are slots that ``make_helpdesk.py`` fills.
The ask decides the intent: who wants money for a broken parcel is a ``refund_request``, who only reports it a
``damaged_item``.
"""

# What happened, without an ask. Shared between intents, so that the situation alone does not decide.
SITUATIONS: dict[str, str] = {
    "late": """
The parcel [was|is] [a week|eight days|two weeks] late.
The {p} was promised for {when} and did not come.
[So far|Up to now] the courier has not shown up [with the {p}|at all].
Tracking for {order} has not moved since {when}.
The delivery date for the {p} was pushed back [twice|three times|again].
""",
    "damaged": """
The {p} came out of the box with a [crack|dent|broken corner].
The package with the {p} was [soaked|crushed|torn open] when it arrived.
On unpacking the {p} I found [scratches all over|loose parts|a bent plug].
The box of the {p} looked as if someone had [sat on|kicked|dropped] it.
""",
    "wrong": """
The {p} in the box was not the [colour|size|model] on the invoice.
{order} held [another model|somebody else's goods|a second cable] instead of the {p}.
I had picked the [black|white|large] {p} and this is not it.
""",
    "fault": """
The {p} [stopped working|died|gave up] {when}.
The {p} keeps [freezing|crashing|switching itself off].
Since {when} the {p} does nothing [but blink|at all|but show an error].
After the last update the {p} is [dead slow|unusable|stuck in a loop].
The {p} [worked fine for|lasted only] {age} and now it fails.
""",
    "unhappy": """
The {p} is simply not [what I hoped for|as good as in the advert|for me].
I used the {p} [twice|once|for a day] and do not get on with it.
My [wife|husband|son|boss] bought the same {p} so now there are two.
""",
}

INTENTS: dict[str, str] = {
    "refund_request": """
[I want|I would like|I'd like] my money back for the {p}.
Please refund [the {p}|me for the {p}|what I paid for the {p}].
When [will|do] I get the {amount} back for the {p}?
I sent the {p} back {when} and the [refund|money] is still missing.
Kindly [return|transfer back] the {amount} I paid for {order}.
I am returning the {p} and expect the full [price|amount] back.
Can I [have|get] a refund on the {p} [bought|I ordered] {when}?
[A voucher is no use to me|No voucher please], I want the {amount} back on my card for the {p}.
You [owe|still owe] me {amount} for the returned {p}.
How do I [ask for|claim|start] a refund for {order}?
Please [reimburse|pay back] the {p}, it goes back in the post [today|this week].
I do not want another {p}, [just the money|only my {amount}|I want to be paid back].
The {p} was returned in {city}, please [credit|put back] the {amount}.
Your [advert|site] says money back within 30 days, so I am [using|invoking] that for the {p}.
[Somebody|{person} on the phone] promised me a refund for the {p} {when}.
I would rather have the {amount} than a [repair|replacement] of the {p}.
Refund for {order} please, the {p} is already [on its way to you|with your warehouse].
The {p} is [going|coming] back to you, please send the {amount} to my account.
Only [part|half] of my refund for the {p} arrived.
[What is the status of|Any news on] my refund for the {p}?
Take the {p} back and [give me|hand me back] the {amount}.
I [demand|ask for] repayment of {amount} for {order}.
Do I get [everything|the shipping too] back if I return the {p}?
Where do I see [when|whether] the {amount} for the {p} is paid back?
Our [office|family] has no use for the {p} and would like the purchase price returned.
I handed in the {p} at your [shop|store] in {city} and was told the money would follow.
""",
    "cancel_order": """
Please cancel [{order}|my order for the {p}|the {p} I ordered {when}].
I [want|need|would like] to call off the order of the {p}.
Do not ship the {p}, I [changed my mind|found it cheaper|no longer need it].
[Stop|Halt] {order} before it leaves your warehouse.
I ordered the {p} by [mistake|accident], please delete the order.
Can I [still cancel|get out of] {order}?
I pressed buy twice, please drop one {p} from {order}.
How do I cancel the {p} [online|in the app|on your site]?
Please [withdraw|void|annul] my purchase of the {p} from {when}.
The {p} has not been sent yet, so please take it off {order}.
I no longer want the {p}, [scrap|forget|kill] the order.
[My daughter|My son|A colleague] ordered the {p} without asking me, please undo it.
There is no cancel button for {order}.
Is it too late to [stop|cancel] the {p}?
Keep the {p}, I am [pulling out of|withdrawing from] the order.
I waited long enough for the {p} and now I cancel.
[Remove|Take] the {p} from my basket order {order}, I will not need it.
I want to end the pre-order of the {p}.
Please confirm that {order} is [cancelled|off|stopped].
We decided against the {p}, so [please do not send it|no delivery please].
I tried to cancel the {p} {when} and your page [crashed|gave an error].
The order for {person} with the {p} must not go out.
My plans changed and the {p} is not needed, [hold back|please stop] the shipment.
I would like to cancel [just|only] the {p}, the rest of {order} can come.
[Someone|A friend] gave me a {p} as a present, so cancel mine before dispatch.
""",
    "late_delivery": """
Where is my {p}? It was [due|promised] {when}.
{order} [has not arrived|is not here yet|never came].
When [will|does] the {p} [arrive|get here]?
The tracking of the {p} [says delivered but I have nothing|stands still|is empty].
I am [still|] waiting for the {p} I ordered {when}.
The courier [did not come|drove past] again with the {p}.
Can you [find out|check] where {order} is?
My {p} is stuck in [{city}|customs|a depot].
You said two days for the {p} and it has been [nine|eight|twelve].
No [word|message] on the shipping of the {p} since {when}.
The {p} was [sent|shipped] {when} and still nothing at my door.
Please tell me the [delivery date|new date|date] for the {p}.
The parcel with the {p} went to {city} instead of to me.
Has {order} left the warehouse [at all|yet]?
My neighbour got her {p} {when}, mine is nowhere.
I stayed home [all day|twice] for the {p} and no van came.
[Could you trace|Please trace] the shipment of the {p}?
The post office knows nothing of {order}.
It says out for delivery since {when} but no {p}.
How much longer [must|do] I wait for the {p}?
The {p} should have been here {when}.
I think the {p} got lost [in the post|on the way].
Your tracking link for {order} [does not open|shows an error].
[Half|One box] of {order} came, the {p} is still missing.
Is there a [delay|strike|problem] with deliveries of the {p} to {city}?
""",
    "damaged_item": """
The {p} arrived [broken|smashed|in pieces|cracked].
The [glass|casing|screen|corner] of the {p} was broken in the box.
I unpacked the {p} and it is [scratched|dented|bent] all over.
The parcel was [crushed|wet|torn] and the {p} inside is damaged.
[Please send|I need] a new {p}, this one was damaged in transit.
The courier must have dropped the {p}, [a piece|the cover] has come off.
There is a crack [right across|along the side of] the brand new {p}.
My {p} came with [a bent plug|a broken button|loose screws].
Opened {order} and the {p} rattles, something [snapped|broke] inside.
You [packed|wrapped] the {p} badly and it did not survive the trip.
How do I report [transport damage|damage] on the {p}?
I have photos of the broken {p} as it [came|was delivered].
The seal was [open|broken] and the {p} had [dents|marks|stains].
Brand new {p}, and already [cracked|chipped] when I opened it.
The {p} from {order} has a [hole|dent|split] in it.
Can I swap the {p}? It was [smashed|broken] on arrival.
What do I do with a {p} that was [delivered|handed over] in pieces?
Water had got into the box and the {p} is [soaked|ruined].
The driver threw the {p} over the fence and now it is [cracked|bent].
The {p} you sent {when} had a broken [foot|lid|clip|cover].
Half of the parts of the {p} [were broken|had cracks] when it got here.
Your parcel looked fine but the {p} in it is [shattered|damaged].
The [charger|cable|stand] in the {p} box is snapped off.
Unboxed it in front of {person}: the {p} is [damaged|bent].
I got a {p} with [deep scratches|a cracked display], clearly from transport.
""",
    "wrong_item": """
I [ordered|bought] the {p} and got something else.
You sent the wrong {p}, mine should be [black|white|the big one].
{order} contains [a different model|the wrong colour|another item] instead of my {p}.
This is not the {p} I [chose|ordered|paid for].
I received [two|three] of the {p} but only ordered one.
The box says {p} but [inside is a cable|there is something else in it].
[Please swap|Can you exchange] the {p}, it is the wrong version.
My {p} came with the plug for another country.
I think I got the parcel of [someone else|{person}], not my {p}.
The invoice lists the {p}, the parcel [does not|holds a toaster].
[Wrong|Incorrect] item in {order}, I asked for the {p}.
The {p} you delivered is last year's model, I [paid for|chose] the new one.
I wanted the {p} in [grey|blue|red], this one is [green|pink].
You mixed up {order}: I need the {p} that I ordered.
There was [a phone case|a lamp|a kettle] in the box where the {p} should be.
I got the small {p} [although|but] I picked the large one.
How do I send back the {p} you sent by mistake and get the right one?
[Someone in the warehouse|Your packer] picked the wrong {p} for me.
The {p} here is not compatible because it is the [US|old|business] version, not what I ordered.
The label has my name but the {p} is for {person} in {city}.
My order was the {p} with charger, yours [came without|has none].
What arrived {when} is not the {p} from my order.
Please send the [right|correct] {p}, the one here has another part number.
I was sent a used {p} [although|when] I ordered a new one.
The {p} does not match [{order}|the picture|the description] at all.
""",
    "billing_error": """
I was charged [twice|two times|double] for the {p}.
My [card|account] shows {amount} for the {p} but the price was lower.
The invoice for {order} is wrong.
Why [did you take|was I billed] {amount} for the {p}?
There is a fee of {amount} on {order} that nobody [explained|mentioned].
The [discount|coupon|voucher] for the {p} was not applied.
Please correct the [bill|invoice] for the {p}.
You [debited|took] {amount} {when} and I do not know what for.
The tax on the invoice of the {p} is [wrong|missing].
I paid for the {p} and still get [reminders|a dunning letter].
My instalment for the {p} was taken [twice|too early] this month.
The sum on {order} does not [add up|match the website].
I see two [payments|charges] of {amount} on my statement.
You billed me for [insurance|express shipping] I never chose with the {p}.
I was billed for three {p} boxes and got one.
The invoice for the {p} is made out to {person}, not to me.
The {p} cost {amount} in the shop and more on the [bill|receipt].
[Somebody explain|Explain please] the extra {amount} on my bill.
Your reminder says {order} is unpaid, but I paid {when}.
The monthly plan of the {p} went up by {amount} without notice.
The amount [on my statement|taken from my bank] for the {p} is not the agreed one.
I never got [an invoice|a receipt] for the {p}, and the charge looks wrong.
Is it right that the {p} was billed in dollars?
My gift card was used up but {order} [was also charged|also went] to my card.
You charged {amount} for delivery though the {p} had free shipping.
""",
    "account_access": """
I [cannot|can't|am unable to] log in [|to my account] to register the {p}.
I forgot the password for the account of my {p}.
The reset [link|mail] never [arrives|comes], so I can't get into the {p} app.
My account is [locked|blocked] after too many tries.
The {p} app says wrong password [but it is right|every time].
The code for signing in to the {p} portal [does not arrive|is refused].
[Somebody else|A stranger] seems to be using the account of my {p}.
How do I [reset|recover] the password of the {p} account?
Your site throws me out when I sign in to manage the {p}.
I am locked out of the {p} [account|portal|cloud].
My login for the {p} stopped being accepted {when}.
Please [unlock|unblock|open] the account in which my {p} is registered.
It says the user does not exist, but my {p} is in that account.
I lost the phone with the login codes for the {p}.
Two factor sign in [fails|loops forever] in the {p} app.
The login page for the {p} just [spins|reloads].
I got a mail about a sign in from {city}, it was not me, my {p} is in that account.
I can't remember which user name I used for the {p}.
[After {person} left|Since {when}] nobody here knows the password for the {p}.
The {p} asks for an admin password I never set.
My session for the {p} [ends|expires] every minute and I have to sign in again.
The new password is not accepted by the {p} [app|cloud].
I need [access to|to get back into] the account with the invoices of the {p}.
The security question for my {p} account makes no sense, I can't get in.
Signing in with my mail on the {p} portal gives error 403.
""",
    "technical_fault": """
The {p} [does not|won't|doesn't] [turn on|start|power up] any more.
My {p} keeps [crashing|restarting|freezing].
The {p} [shows|gives] error [E12|47|F3] and stops.
Since the update {when} the {p} [is broken|does not respond|is terribly slow].
The {p} loses its connection [all the time|every hour|at night].
There is a [strange|burnt|loud] [smell|noise] from the {p}.
The {p} gets [very|far too] hot.
The [battery|power supply] of the {p} [no longer charges|dies at once].
What can I do when the {p} [hangs|freezes|does nothing]?
My {p} was fine until {when}, now it [blinks|beeps] and does nothing.
Half of the buttons on the {p} [do not react|are dead].
The {p} switches itself off [after a minute|at random|again and again].
I restarted the {p} [three|ten] times and it still fails.
The {p} forgets [everything|all settings] when the power goes.
The software of the {p} [hangs|crashes] at 99 percent.
The display of the {p} went [dark|blank] {when}.
[Help, my|My] {p} has stopped working.
The {p} makes a clicking sound and [quits|stops].
Nothing happens when I press start on the {p}.
The {p} disconnects from [my phone|the network] all the time.
Is there a fix for the {p} that [hangs|reboots] at night?
I did a factory reset and the {p} [still fails|is worse].
The sensor of the {p} [is off|reads rubbish|is dead].
The {p} has a [bug|glitch]: the clock jumps back by an hour.
The {p} became [painfully slow|unusable] for no reason.
""",
    "setup_help": """
How do I [set up|install|configure] the {p}?
I [do not|don't] know how to connect the {p} to [the network|my phone|my tv].
The manual of the {p} [is only in Dutch|makes no sense to me|is missing].
Which [cable|app|port] do I need to get the {p} going?
Can you [walk|guide] me through the first steps with the {p}?
I am stuck at step [3|4|5] of the installation of the {p}.
Where do I [find|see] the pairing code of the {p}?
Just got the {p}, how does one [start|begin]?
How can I use the {p} together with [an older model|a second one|my speaker]?
Where in the menu do I change the language of the new {p}?
I want to [mount|place] the {p} on the wall, how is it done?
Do I have to install an app before I switch on the {p}?
The setup wizard of the {p} asks for a [PIN|serial number], where is it?
Please send me [instructions|a guide|a manual] for the {p}.
How do I move my [data|settings] from the old device to the {p}?
[My mother|My father|{person}] needs help to get the {p} running for the first time.
What is the right order for plugging in the {p}?
Is there a video that shows how to [install|connect] the {p}?
I can't work out how to update the {p} [by myself|to the new version].
How do I add a second user to the {p}?
The quick start sheet of the {p} does not mention [windows|my phone type].
How should the {p} be configured for a [small office|school|big house]?
First time user here, which settings do you recommend for the {p}?
Can a technician in {city} install the {p} for me?
How do I [put|get] the {p} back to factory settings before giving it away?
""",
    "change_details": """
I moved to {city}, please [change|update] the address for {order}.
Please [update|change] my [address|phone number|e-mail] for the {p} account.
I have a new [bank account|credit card] for the instalments of the {p}.
The name on the {p} contract should be {person} [from now on|now].
Please send {order} to my [office|parents|new flat] instead.
My [mail|e-mail] address has changed, the {p} is still registered to the old one.
How do I change the [delivery|billing] address for the {p}?
I married and my surname on {order} is [now different|out of date].
Put the {p} subscription on the card of my [husband|wife|company].
The house number on {order} is [wrong|missing], it should be [12|7b|31].
[Transfer|Move] the registration of the {p} to {person}.
I want to pay the {p} by [invoice|transfer] instead of by card.
My card expired, where do I enter the new one for the {p}?
Could the {p} be delivered to a pick-up point in {city} instead?
Please correct the spelling of my name on the papers of the {p}.
Our company changed its name, please adapt the records for the {p}.
Change the contact for the {p} to {person}, I am leaving the firm.
From {when} on we live in {city}, please note it for the {p} contract.
I want the [newsletter|messages] for the {p} at another address.
The phone number in my {p} profile is old, please replace it.
Switch the billing date of the {p} to the [first|fifteenth] of the month.
I gave the {p} to my [sister|brother], please put it in her name.
Wrong postcode on {order}, [could|can] you fix that before dispatch?
Please add a second [contact|delivery address] to the account of the {p}.
My bank details for the {p} are no longer valid, here to give you new ones.
""",
    "product_question": """
Does the {p} work with [linux|an iphone|android|a mac]?
Is the {p} [in stock|available] in {city}?
What is the difference between the {p} and the [cheaper|bigger|older] one?
How long does the battery of the {p} last?
Can the {p} be used [outdoors|in the bathroom|abroad]?
Before I buy the {p}: is it [waterproof|quiet|easy to clean]?
Will there be a [sale|discount] on the {p} [soon|in spring]?
Which {p} do you [recommend|suggest] for a [student|small office|flat]?
Does the {p} come with a [charger|case|cable]?
How [big|heavy|loud] is the {p}?
I am thinking of buying the {p}, does it need a subscription?
Is a [newer|white|smaller] {p} coming out this year?
Do you sell [spare parts|bags|accessories] for the {p}?
Can I try the {p} in your shop in {city}?
Would the {p} fit [a house with three floors|a room of 12 square metres]?
How many [devices|people] can share the {p}?
Is the {p} still made or is it the old series?
Do you offer a [student|bulk] price for ten of the {p}?
What does the {p} cost with [delivery|tax] to {city}?
Does the {p} store data [in the cloud|in Europe]?
How many years will the {p} get updates?
Can the {p} be paid in [instalments|three parts]?
I read about the {p}, is it [good|suitable] for beginners?
What guarantee period would I get if I buy the {p}?
Is the {p} suitable as a gift for a [child|grandmother]?
""",
    "warranty_claim": """
The {p} is {age} old and broke, is it still under [warranty|guarantee]?
I want to [claim|use] the warranty on my {p}.
Please [repair|fix] the {p} under warranty.
My {p} failed after {age}, the guarantee [should cover|covers] that.
Where do I send the {p} for a [warranty|free] repair?
How long is the [guarantee|warranty] of the {p} that I own?
The shop in {city} says you handle the guarantee for the {p}.
I need a repair [number|form] for the {p}.
I have the receipt from {when}, please replace the {p} under guarantee.
Is a dead battery of the {p} [covered|included] after {age}?
The {p} came back from repair and has the same fault, [I claim again|warranty again please].
Your repair centre has had my {p} since {when}.
Do I lose the warranty if I [open|unscrew] the broken {p}?
The extended warranty for the {p} [must|should] cover this defect.
I registered the {p} for the guarantee and now it is broken, [what next|how do I proceed].
Send a technician, the {p} is broken and within the guarantee period.
Your hotline refused the warranty for my {p}, I disagree.
I bought the {p} second hand, does the guarantee [pass to me|still hold] for the defect?
What does a repair of the {p} cost once the warranty is over?
[Can I|May I] get a loan device while my {p} is being repaired?
My {p} has a factory defect, I want it [mended|repaired|exchanged] free of charge.
I have waited since {when} for the repaired {p}.
The guarantee card of the {p} got lost, [can I still claim|is the repair still free]?
After {age} the {p} must not break, this is a guarantee case.
Warranty case: {p}, bought {when}, [serial number|receipt] at hand.
""",
}

# Which situations may come before which ask.
SITUATIONS_OF: dict[str, str] = {
    "refund_request": "late damaged wrong fault unhappy",
    "cancel_order": "late unhappy",
    "warranty_claim": "fault",
    "wrong_item": "late",
    "billing_error": "late unhappy",
    "damaged_item": "late",
    "setup_help": "unhappy",
}
