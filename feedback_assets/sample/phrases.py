"""Words and sentence patterns of the synthetic sample: `{slot}` is filled from the subject or the language's lists."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """What the items of one category and language are about."""

    topics: tuple[str, ...]
    things: tuple[str, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """Patterns of one language: prompts, sentences that help, and sentences that fill."""

    prompts: tuple[str, ...]
    settings: tuple[str, ...]
    limits: tuple[str, ...]
    helpful: tuple[str, ...]
    filler: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    subjects: dict[str, Subject]


def _split(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split("|"))


CODING = Subject(
    _split("""a flaky integration test|a slow SQL report|merging two CSV exports|a memory leak in a worker|paging
        through an API|renaming a database column|a race between two cron jobs|parsing log lines|caching image
        thumbnails|rounding money amounts|retrying failed uploads|sorting names with accents|splitting a large
        module|a date that shifts by one day|validating a form|streaming a big file|rolling back a
        migration|counting unique visitors|a circular import|packaging a command-line tool"""),
    _split("""the retry loop|the cache key|the connection pool|the index on the date column|the parser|the error
        handler|the build script|the lock file|the test fixture|the time zone setting|the batch size|the return
        type|the queue|the configuration file"""),
    _split("""write a failing test first|log the request id|pin the library version|read the query plan|bisect the
        last commits|measure before changing anything|move the side effect out of the loop|return early on empty
        input|compare byte counts on both sides|replace the sleep with an explicit wait|keep the old name as an
        alias|run it with one worker|wrap the two writes in a transaction|make the timeout a parameter"""),
)
WRITING = Subject(
    _split("""an invitation to a reading evening|a letter of complaint about a late parcel|a short story set in a
        lighthouse|the opening of a travel essay|a speech for a retirement party|a product text for a wooden lamp|a
        poem about the first frost|a newsletter for a garden club|a scene between two rival bakers|a blurb for a
        detective novel|a thank-you note to volunteers|a review of a folk concert|a fable about a patient heron|an
        obituary for a fictional explorer|a menu in plain words|a dialogue on a night train|a house rule for a
        shared kitchen|a caption for an old map|a toast for a village fair|a diary entry from a weather station"""),
    _split("""the first line|the closing paragraph|the narrator's voice|the rhythm|the middle section|the turning
        point|the greeting|the image of the harbour|the tone|the title|the last sentence|the dialogue|the pace|the
        weather motif"""),
    _split("""open with a concrete detail|cut every second adjective|let one question stay open|read it aloud
        once|name the place early|end on an action rather than a moral|keep the verbs in the past tense|swap the
        passive for the active|give the reader one smell and one sound|put the request in the second sentence|vary
        the length of the sentences|repeat a single word on purpose|hold back the reason until the end|leave the
        joke unexplained"""),
)
REASONING = Subject(
    _split("""splitting a bill among seven friends|choosing between two train passes|scheduling three machines|the
        odds of a shared birthday|weighing eleven coins|a river crossing with a goat|comparing two phone
        contracts|filling a jug to exactly four litres|ordering five runners from clues|a survey with a biased
        sample|dividing a field fairly|the shortest walk past six shops|a clock that loses two minutes a day|packing
        books into boxes|planning seats for rival families|guessing a number by halving|a lottery with two
        draws|mixing paint to a ratio|a fair way to share a taxi|whether two averages can mislead"""),
    _split("""the total|the second clue|the base rate|the remainder|the boundary case|the assumption|the ratio|the
        smallest case|the symmetry|the time limit|the worst case|the table of options|the expected value|the missing
        condition"""),
    _split("""write down what is known|try the smallest case by hand|count the complement instead|draw the two
        options side by side|check the units|work backwards from the goal|rule out the impossible orders|label the
        unknown with a letter|test the answer against each clue|separate the fixed cost from the rest|look for what
        never changes|double the number and see what happens|list the cases without overlap|ask what would make it
        false"""),
)
CHAT = Subject(
    _split("""starting a balcony garden|sleeping better before early shifts|keeping a sourdough alive|learning to
        juggle|choosing a first telescope|planning a weekend without a screen|getting back into running|naming a
        rescue dog|packing for a week of rain|making friends in a new town|cleaning a cast-iron pan|picking a board
        game for six|baking without eggs|drawing for ten minutes a day|repairing a squeaky door|growing basil in
        winter|reading more novels|a picnic when it is windy|training for a long hike|brewing tea properly"""),
    _split("""the soil|the morning routine|the second week|the cheap version|the starter|the shopping list|the
        weather|the timing|the right shoes|the light|the spare evening|the small habit|the budget|the first attempt"""),
    _split("""begin with ten minutes a day|borrow the equipment first|write the plan on paper|ask at the local
        library|set everything out the evening before|keep a short log|change only one thing a week|invite somebody
        along|buy the sturdy one second-hand|skip a day without guilt|put a reminder on the door|taste it before
        adding more|stop while it is still fun|choose the quieter hour"""),
)
SUMMARY = Subject(
    _split("""the minutes of a parish meeting|a report on bicycle traffic|a paper about bird migration|the manual of
        a heat pump|a podcast on medieval trade|a debate on opening hours|the rules of a chess league|a chapter on
        volcanoes|a study of school lunches|the history of a canal|a lecture on bridges|an article about night
        trains|the audit of a museum shop|a guide to composting|a survey of allotment tenants|a press release on a
        new ferry"""),
    _split("""the main finding|the second table|the cost estimate|the open question|the sample|the method|the
        objection|the deadline|the background|the recommendation|the footnote|the vote"""),
    _split("""state the result in one sentence|name who decided|keep the two figures that matter|drop the history of
        the idea|say what is still open|put the dates in order|separate claim from evidence|mention the dissenting
        view|give the range and not only the mean|quote no more than five words|close with the next step|leave the
        examples out"""),
)
SAFETY = Subject(
    _split("""storing cleaning products at home|a suspicious link in a message|a gas smell in the cellar|lithium
        batteries in hand luggage|mushrooms found in the woods|a frayed extension cord|leftover painkillers|a
        child-proof balcony|a candle near curtains|swimming in a cold lake|an unknown charger|ice on a shared path|a
        leaning shelf|black mould behind a cupboard|a barbecue on a dry day|a cut from a rusty tin"""),
    _split("""the emergency number|the label|the ventilation|the main switch|the expiry date|the dose|the warning
        sign|the safe distance|the pharmacist|the fuse|the second exit|the first minute"""),
    _split("""leave the room before calling for help|keep it in the original container|unplug it first|ask a
        professional rather than guess|never mix two products|check the official list|warn the neighbours|photograph
        it and keep away|cool it under running water|report it to the operator|keep children and pets out|test the
        alarm once a month"""),
)

ENGLISH = Language(
    prompts=(
        "I need help with {topic} {setting}. What would you suggest {limit}?",
        "Can you explain how to approach {topic} {setting}, {limit}?",
        "Give me a plan for {topic}, {limit}. It is {setting}.",
        "What is the best way to deal with {topic} {setting} {limit}?",
        "My question is about {topic}. I am working on it {setting}, {limit}. Where do I start?",
        "Please take {topic} {setting} and show me a good version, {limit}.",
        "How would an expert handle {topic} {setting}? I would like to manage {limit}.",
        "{limit_up}: what should I know about {topic} {setting}?",
    ),
    settings=_split("""for a small library on the coast|in a team of three|during a busy week|for complete
        beginners|in a shared flat|for a village school|on a very old laptop|for an audience of retired engineers|in
        a mountain hut|for a local museum|while travelling by train|in a community workshop|for a student
        newspaper|after a long break|for a family of five|in a noisy open office|for a charity with no money|during
        the winter months|in a town that nobody knows|for a weekend course|at a summer camp|for people who read
        slowly|in a tiny kitchen|for a sceptical manager|in a hurry before lunch|for an evening class|on a farm far
        from town|for a choir of amateurs|in a rented room|for a club that meets monthly"""),
    limits=_split("""without buying anything|in under an hour|in plain words|with only pen and paper|step by step|in
        at most five steps|without any jargon|on a small budget|with one concrete example|within a single
        page|without asking anyone for help|by tomorrow evening|in a repeatable way|with the usual mistakes pointed
        out|without an internet connection|without nasty surprises|with two alternatives|as if for a friend|with
        reasons for each step|in a way that lasts"""),
    helpful=(
        "Start with {thing}: {action}, and only then move on.",
        "If you have {num} minutes, {action}; that alone settles most of it.",
        "For {topic}, I would {action} and afterwards look again at {thing}.",
        "The common mistake is to ignore {thing}, so {action} before anything else.",
        "A quick check: after {num} tries {thing} should look {state}; otherwise {action}.",
        "{who} once told our fictional team to {action}, because {why}.",
        "Two options remain. Either {action}, or {action2} and accept that {why}.",
        "What matters here is {thing}, since {why}.",
        "Step {num}: {action}. Write the outcome next to {thing}.",
        "Doing this {setting} is harder than it sounds, so {action} in the {time} and leave the rest.",
        "To see whether it worked, compare {thing} with {thing2} after about {num} days.",
        "You can {action2} at no cost, and afterwards {thing} looks {state}.",
        "Do not touch {thing} yet; {action} and watch what changes by the {time}.",
        "Here is a concrete example: with {num} cases, {action2}, and {thing} turns out {state}.",
        "It is worth the trouble to {action}: {why}.",
        "Should that fail, fall back on {thing2} and {action2}.",
        "Keep {thing} apart from {thing2}, because {why}.",
        "Around {num} in a hundred attempts go wrong at {thing}; to avoid this, {action}.",
        "My order would be: first {action}, next {action2}, last a look at {thing}.",
        "Because you asked to manage {limit}, the simplest route is to {action}.",
        "Once {thing} is {state}, it takes a single {time} to {action2}.",
        "Anyone who skips {thing} ends up doing it twice, so {action2} right away.",
        "In short, {action} and treat {thing2} as optional.",
        "There is one exception: if {thing2} is already {state}, do not {action}.",
    ),
    filler=(
        "That is a great question, and many people wonder about {topic}.",
        "There are of course many different aspects to consider when it comes to {thing}.",
        "It depends on a number of factors, such as {thing} and similar matters.",
        "As a general rule, everyone should simply do what feels right in the {time}.",
        "Hopefully this gives you a useful overview of {topic}!",
        "Opinions differ on {thing}, and that is perfectly fine.",
        "Some say one thing about {thing2}, others say another.",
        "With a little patience, {topic} can be a truly rewarding experience.",
        "Remember that practice makes perfect and that {thing} takes its time.",
        "Let me know if you would like to hear more about {thing2} or anything else.",
        "In today's fast-moving world, {topic} has become more important than ever.",
        "You might maybe try to {action}, or possibly not, depending on the situation.",
    ),
    slots={
        "num": _split("two|three|four|five|six|eight|ten|twelve|fifteen|twenty|thirty|forty|sixty|ninety"),
        "state": _split("""steady|clear|boringly predictable|slightly rough|even|short enough|easy to
            undo|familiar|tidy|out of date|plain|lighter than before"""),
        "who": _split("""A patient neighbour|The night porter|A retired surveyor|The oldest member|An invented
            professor|A careful editor|The lighthouse keeper|A travelling mechanic|The head gardener|A quiet
            colleague"""),
        "why": _split("""small errors add up quietly|nobody remembers the details a month later|the first impression
            is hard to undo|most of the effort sits at the end|it shows at once what is missing|the cheap fix tends
            to return|people notice the order more than the content|it keeps the next decision open|a second pair of
            eyes finds it sooner|the exception is where it usually breaks|it leaves you room to change your
            mind|waiting costs more than trying"""),
        "time": _split("morning|first hour|second half|quiet season|same week|late afternoon|next round|final stretch"),
    },
    subjects={
        "coding": CODING,
        "writing": WRITING,
        "reasoning": REASONING,
        "chat": CHAT,
        "summary": SUMMARY,
        "safety": SAFETY,
    },
)

GERMAN = Language(
    prompts=(
        "Ich brauche Hilfe: {topic} {setting}. Was rätst du mir {limit}?",
        "Wie gelingt {topic} {setting}, {limit}?",
        "Erkläre mir bitte {limit}, worauf es ankommt. Thema: {topic} {setting}.",
        "Mein Vorhaben ist {topic} {setting}. Womit fange ich {limit} an?",
    ),
    settings=_split("""in einer kleinen Wohnung|für einen Dorfverein|während einer vollen Woche|für blutige
        Anfänger|im Winter|auf einer langen Zugfahrt|in einer Schulklasse|für eine Familie zu fünft|nach langer
        Pause|auf dem Land|im Ferienlager|für Leute mit wenig Zeit"""),
    limits=_split("""ohne etwas zu kaufen|in höchstens fünf Schritten|in einfachen Worten|mit einem Beispiel|bis
        morgen Abend|ohne fremde Hilfe|mit kleinem Budget|mit den üblichen Fehlern|möglichst gründlich|in weniger
        als einer Stunde"""),
    helpful=(
        "Am besten beginnst du so: {action}, dann erst kommt {thing} an die Reihe.",
        "Wer {num} Minuten übrig hat, merkt schnell, dass {thing} entscheidet.",
        "Ein häufiger Fehler betrifft {thing}; {why}.",
        "Mein Vorschlag in der richtigen Folge: {action}, später {action2}.",
        "Nach etwa {num} Tagen lohnt ein zweiter Blick auf {thing}.",
        "Falls das nicht klappt, hilft nur eins: {action2}.",
        "Wichtig bleibt {thing}, denn {why}.",
        "Kurz gesagt: {action} und nicht zu viel auf {thing2} geben.",
        "Im Zweifel gilt: {action}, weil {why_sub}.",
        "Bei {num} Versuchen geht einer schief, meistens wegen einer Kleinigkeit rund um {thing2}.",
        "Trenne die beiden Fragen; {thing} hat mit dem Rest wenig zu tun.",
        "Probiere es {setting} zuerst im Kleinen: {action2}.",
        "Zwei Wege führen zum Ziel: {action}, oder aber {action2}.",
        "Schreib dir auf, was {thing} verändert hat, und vergleiche nach {num} Wochen.",
    ),
    filler=(
        "Das ist eine wirklich spannende Frage, die sich viele stellen.",
        "Grundsätzlich kommt es immer auf die Umstände und auf {thing} an.",
        "Da gibt es natürlich ganz unterschiedliche Meinungen, auch über {thing2}.",
        "Mit etwas Geduld wird {topic} sicher ein voller Erfolg!",
        "Ich hoffe, dieser kleine Überblick hilft dir ein wenig weiter.",
        "Letztlich muss das jeder für sich selbst entscheiden.",
    ),
    slots={
        "num": _split("zwei|drei|vier|fünf|sechs|acht|zehn|zwölf|fünfzehn|zwanzig"),
        "why": _split("""kleine Fehler summieren sich leise|später erinnert sich niemand daran|der Anfang prägt alles
            Weitere|die billige Lösung kommt meist zurück|Warten kostet mehr als Probieren|ein zweites Augenpaar
            sieht mehr"""),
        "why_sub": _split("""man so am wenigsten verliert|der Rest sich dann von selbst ergibt|niemand gern doppelt
            arbeitet|es den nächsten Schritt offen lässt|die Ausnahme hier die Regel ist"""),
    },
    subjects={
        "chat": Subject(
            _split("""ein Kräuterbeet auf dem Balkon|eine Wanderung bei Regen|besserer Schlaf vor der Frühschicht|ein
                Sauerteig|der Einstieg ins Jonglieren|ein Spieleabend zu sechst|eine Radtour ohne Karte|das erste
                Fernrohr"""),
            _split("""das Licht|die Einkaufsliste|die zweite Runde|die richtige Stunde|das Wetter|die alte Pfanne|die
                Gewohnheit|die Erde"""),
            _split("""erst alles bereitlegen|jeden Tag zehn Minuten üben|die Ausrüstung leihen|nur eine Sache
                ändern|jemanden mitnehmen|rechtzeitig aufhören|vorher einmal kosten|ein kurzes Protokoll führen"""),
        ),
        "writing": Subject(
            _split("""eine Einladung zum Leseabend|eine Rede zum Abschied|ein Gedicht über den ersten Frost|ein
                Beschwerdebrief wegen einer Lieferung|ein Märchen vom geduldigen Reiher|ein Text für die
                Vereinszeitung|eine Szene im Nachtzug|ein Klappentext"""),
            _split("""die erste Zeile|das Ende|die Anrede|das Tempo|das Bild vom Hafen|die Überschrift|die
                Stimmung|die Wendung"""),
            _split("""mit einem Gegenstand anfangen|jedes zweite Adjektiv streichen|laut vorlesen|den Ort früh
                nennen|eine Frage offen lassen|die Bitte nach vorn ziehen|mit einer Handlung enden|kurze und lange
                Sätze mischen"""),
        ),
    },
)

SPANISH = Language(
    prompts=(
        "Necesito ayuda con {topic} {setting}. ¿Qué me aconsejas {limit}?",
        "¿Cómo se prepara {topic} {setting}, {limit}?",
        "Explícame {limit} lo esencial de {topic} {setting}.",
        "Estoy pensando en {topic} {setting}. ¿Por dónde empiezo {limit}?",
    ),
    settings=_split("""en un piso pequeño|para un club de barrio|durante una semana difícil|para principiantes|en
        invierno|en un viaje largo|para una clase de primaria|con una familia numerosa|después de años sin
        práctica|en el campo|en verano|para gente con prisa"""),
    limits=_split("""sin gastar dinero|en cinco pasos como mucho|con palabras sencillas|con un ejemplo|antes de
        mañana|sin ayuda de nadie|con poco presupuesto|señalando los errores típicos|con todo detalle|en menos de
        una hora"""),
    helpful=(
        "Lo primero es {thing}; después conviene {action}.",
        "Si tienes {num} minutos, basta con {action}.",
        "El error más común está en {thing}, porque {why}.",
        "Yo seguiría este orden: {action}, luego {action2}.",
        "Pasados {num} días, vuelve a mirar {thing} con calma.",
        "Si eso falla, queda una salida: {action2}.",
        "Aquí decide {thing}, ya que {why}.",
        "En resumen, {action} y no preocuparse demasiado por {thing2}.",
        "De cada {num} intentos uno sale mal, casi siempre por {thing2}.",
        "Separa las dos cosas: {thing} por un lado y {thing2} por otro.",
        "Hazlo {setting} primero en pequeño, es decir, {action2}.",
        "Anota qué cambia en {thing} y compáralo al cabo de {num} semanas.",
        "Hay dos caminos: {action}, o bien {action2}.",
    ),
    filler=(
        "Es una pregunta muy interesante que mucha gente se hace.",
        "En general todo depende de las circunstancias; también cuenta {thing}.",
        "Sobre {thing2} hay opiniones para todos los gustos.",
        "Con un poco de paciencia, {topic} será una experiencia inolvidable.",
        "Espero que este pequeño resumen te sirva de algo.",
        "Al final cada persona tiene que decidir por su cuenta.",
    ),
    slots={
        "num": _split("dos|tres|cuatro|cinco|seis|ocho|diez|doce|quince|veinte"),
        "why": _split("""los fallos pequeños se acumulan|nadie recuerda luego los detalles|el comienzo marca todo lo
            demás|lo barato suele volver|esperar cuesta más que probar|otra mirada lo ve antes"""),
    },
    subjects={
        "chat": Subject(
            _split("""un huerto en el balcón|una excursión con lluvia|un pan de masa madre|una tarde de juegos|un
                viaje en bicicleta|el primer telescopio|una merienda con viento|un plan para leer más"""),
            _split("""la luz|la lista de la compra|el segundo intento|la hora adecuada|el tiempo|la olla vieja|la
                costumbre|la tierra"""),
            _split("""preparar todo la noche anterior|practicar diez minutos al día|pedir prestado el equipo|cambiar
                una sola cosa|invitar a alguien|parar a tiempo|probar antes de añadir más|llevar un cuaderno breve"""),
        ),
        "writing": Subject(
            _split("""una invitación a una lectura|un discurso de despedida|un poema sobre la primera helada|una
                carta de queja|una fábula de una garza|una nota para el boletín|una escena en un tren nocturno|la
                contraportada de una novela"""),
            _split("""la primera frase|el final|el saludo|el ritmo|la imagen del puerto|el título|el tono|el giro"""),
            _split("""empezar con un objeto|quitar la mitad de los adjetivos|leerlo en voz alta|nombrar pronto el
                lugar|dejar una pregunta abierta|adelantar la petición|terminar con una acción|mezclar frases cortas
                y largas"""),
        ),
    },
)

LANGUAGES = {"en": ENGLISH, "de": GERMAN, "es": SPANISH}
SHORT = ("Sure.", "No idea.", "Yes, that works.", "Try again.", "It depends.", "Looks fine.", "Maybe later.")
"""Responses that say nothing: under 20 characters."""
