"""Words of answers in several languages, as patterns: colours, numbers, sides, refusals.

Languages: English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Swedish, Turkish, Russian, Chinese,
Japanese, Korean. Patterns are matched against text without case and without accents, see `reading.plain`.
"""

from collections.abc import Mapping

# The endings of German and Dutch adjectives.
_E = "(?:e[rsnm]?)?"
COLOURS: Mapping[str, str] = {
    "red": rf"red(?:dish)?|crimson|scarlet|rot{_E}|rouges?|roj[oa]s?|ross[oaei]|vermelh[oa]s?|rood|rode|czerwon\w+|rod[at]?"
    r"|kirmizi|красн\w+|红色?|紅色?|赤色?|赤い|빨간\w*|빨강\w*|적색|🔴|🟥|❤️?",
    "green": rf"green(?:ish)?|lime|grun{_E}|verts?|vertes?|verdes?|verdi|groene?|zielon\w+|gron[at]?|yesil|зелен\w+"
    r"|绿色?|綠色?|緑色?|초록\w*|녹색|🟢|🟩|💚",
    "blue": rf"blue(?:ish)?|navy|blau{_E}|bleue?s?|azul(?:es)?|blu|blauwe?|niebiesk\w+|bla(?:tt)?|mavi|син\w{{1,3}}"
    r"|голуб\w+|蓝色?|藍色?|青色?|青い|파란\w*|파랑\w*|청색|🔵|🟦|💙",
    "yellow": rf"yellow(?:ish)?|gelb{_E}|jaunes?|amarill[oa]s?|giall[oaie]|amarel[oa]s?|gele?|zolt\w+|gula?|sari"
    r"|желт\w+|黄色?|黃色?|黄い|노란\w*|노랑\w*|황색|🟡|🟨|💛",
    "black": rf"black|schwarz{_E}|noire?s?|negr[oa]s?|ner[oaie]|pret[oa]s?|zwarte?|czarn\w+|svart[a]?|siyah|черн\w+"
    r"|黑色?|黒色?|黒い|검은\w*|검정\w*|흑색|⚫️?|⬛️?|🖤",
    "white": rf"white|weiss{_E}|blanc(?:he)?s?|blanc[oa]s?|bianc[oa]|bianch[ie]|branc[oa]s?|witte?|bial\w+|vita?|vitt|beyaz"
    r"|бел\w{2,3}|白色?|白い|흰\w*|하얀\w*|백색|⚪️?|⬜️?",
    "grey": rf"gr[ea]y(?:ish)?|silver|grau{_E}|gris(?:es)?|grigi[oae]?|cinzas?|cinzent[oa]s?|grijze?|grijs|szar\w+|graa?|gratt"
    r"|gri|сер(?:ый|ая|ое|ого|ым|ой)|灰色?|회색",
    "cyan": r"cyan|aqua|turquoise|turkis\w*|ciano?|turchese|turquesa|teal|tyrkys\w*|бирюзов\w+|青绿色?|청록\w*",
    "magenta": r"magenta|fuchsia|pink(?:ish)?|purple|violet\w*|lila\w*|rosa|rose|morad[oa]|viola|rox[oa]|paars\w*|roze"
    r"|fiolet\w*|rozow\w*|mor|pembe|фиолетов\w+|пурпурн\w+|розов\w+|紫色?|粉红?色?|ピンク|분홍\w*|보라\w*|🟣|🟪",
    "orange": r"orangen?|naranjas?|arancion[ei]|laranjas?|oranje|pomaranczow\w+|turuncu|оранжев\w+|橙色?|オレンジ色?|주황\w*|🟠|🟧",
    "brown": rf"brown(?:ish)?|braun{_E}|marrons?|brun[ea]?s?|marron(?:es)?|marrone|castanh[oa]|bruine?|brazow\w+|коричнев\w+"
    r"|棕色?|褐色?|茶色|갈색|🟤|🟫",
}
ACHROMATIC = frozenset({"black", "white", "grey"})

_NUMBERS = """
zero|null|nul|cero|nolla|noll|zero|sifir|ноль|нуль|零|〇|영
one|eins?|eine[rsnm]?|une?|un[oa]|uma?|een|jeden|jedna|jedno|ett|en|bir|один|одна|одно|一个?|一つ|하나|한
two|zwei|deux|dos|due|dois|duas|twee|dwa|dwie|tva|iki|два|две|二|两个?|二つ|둘|두
three|drei|trois|tres|tre|drie|trzy|uc|три|三个?|三つ|셋|세
four|vier|quatre|cuatro|quattro|quatro|cztery|fyra|dort|четыре|四个?|四つ|넷|네
five|funf|cinq|cinco|cinque|vijf|piec|fem|bes|пять|五个?|五つ|다섯
six|sechs|seis|sei|zes|szesc|sex|alti|шесть|六个?|六つ|여섯
seven|sieben|sept|siete|sette|sete|zeven|siedem|sju|yedi|семь|七个?|七つ|일곱
eight|acht|huit|ocho|otto|oito|osiem|atta|sekiz|восемь|八个?|八つ|여덟
nine|neun|neuf|nueve|nove|negen|dziewiec|nio|dokuz|девять|九个?|九つ|아홉
ten|zehn|dix|diez|dieci|dez|tien|dziesiec|tio|on|десять|十个?|十|열
"""
NUMBERS: Mapping[str, str] = {
    str(value): rf"(?<![\d.,]){value}(?![\d]|[.,]\d)\ufe0f?\u20e3?|{words}"
    for value, words in enumerate(_NUMBERS.strip().splitlines())
}

SIDES: Mapping[str, str] = {
    "left": r"left(?:most|[- ]hand)?|link(?:s|e[rsnm]?|er|erhand)?|gauche|izquierd[oa]|sinistr[oa]|esquerd[oa]|linkerkant|lew[aeyj]\w*"
    r"|vanster|sol(?:da|unda|dadir)?|слева|лев\w{2}|左边?|左側?|左侧|왼쪽\w*|⬅️?|←|◀️?",
    "right": r"right(?:most|[- ]hand)?|rechts?|rechte[rsnm]?|rechterkant|droite?|derech[oa]|destr[oa]|direit[oa]|praw[aeyj]\w*"
    r"|hoger|sag(?:da|inda|dadir)?|справа|прав\w{2}|右边?|右側?|右侧|오른쪽\w*|➡️?|→|▶️?",
    "top": r"top(?:most)?|upper|above|oben|obere[rsnm]?|haut|arriba|superior|alto|sopra|cima|topo|boven(?:aan|kant)?|gora|gorn\w+|gorze"
    r"|overst|upptill|ust(?:te|unde)?|yukari\w*|сверху|вверху|верх\w*|上边?|上方|上部|上側|上面|위쪽?\w*|상단|⬆️?|↑|🔼",
    "bottom": r"bottom(?:most)?|lower|below|unten|untere[rsnm]?|bas|abajo|inferior|basso|sotto|baixo|fundo|onder(?:aan|kant)?|dol[eu]?|doln\w+"
    r"|nederst|nertill|alt(?:ta|inda)?|asagi\w*|снизу|внизу|ниж\w*|下边?|下方|下部|下側|下面|아래\w*|하단|⬇️?|↓|🔽",
}
PITCHES: Mapping[str, str] = {
    "high": r"high(?:er|[- ]pitched)?|treble|hoh?e[rsnm]?|hoch|aigue?s?|haute?|alt[oa]s?|agud[oa]s?|acut[oaie]|hoge?|hoog|wysok\w+|hog[at]?"
    r"|yuksek|высок\w+|高音?|高い|높은\w*",
    "low": r"low(?:er|[- ]pitched)?|bass|deep|tiefe?[rsnm]?|niedrig\w*|graves?|basse?|baj[oa]s?|bass[oaie]|grav[ei]|baix[oa]s?|lage?|laag|nisk\w+"
    r"|lag[at]?|djup|alcak|низк\w+|低音?|低い|낮은\w*",
}
HEARD: Mapping[str, str] = {
    "tone": r"tones?|beep\w*|sound(?:s|ing)?|hum\w*|ton|tone?s?|son|sonido|tono|tom|toon|geluid|dzwiek|ljud|ses|звук|тон|音调|声音|音|소리|yes|ja|oui|si",
    "silence": r"silen\w*|quiet|stille|still|ruhe|silenzio|stilte|cisza|tystnad|sessizlik|тишин\w+|静音|无声|静か|無音|침묵|무음|nothing|no",
}
# What stands before a word that is not meant: up to two small words may lie between.
NEGATIONS = (
    r"(?:not|no|never|neither|nor|isn't|isnt|aren't|wasn't|without|rather than|instead of|nicht|kein\w*|weder|noch|sondern nicht|statt"
    r"|pas|ni|sin|non|nem|nao|niet|geen|nie|ne|inte|degil|не|нет|ни|不是?|没有|ではなく)"
)
# Behind these, what was denied is over.
TURNS = r"(?:but|sondern|aber|sino|pero|mais|ma|maar|mas|ale|lecz|men|utan|но|а)\b"
# What announces an answer.
MARKERS = (
    r"(?:final answer|the answer|my answer|answer|antwort|reponse|respuesta|risposta|resposta|antwoord|odpowiedz|svar|cevap|ответ"
    r"|答案|回答|答え|정답|답)"
)
# The model says that there is no picture or sound in what it got.
ABSENT = (
    r"(?:no|any|without an?|the|an?|your)\s+(?:\w+\s+)?(?:image|picture|photo\w*|audio|sound|file|attachment)s?\s+(?:\w+\s+){0,3}"
    r"(?:attached|provided|given|uploaded|received|included|shared|present|available|visible|here)"
    r"|(?:see|have|find|receive|got|get|hear|there is|there's|there was|contains?)\s+(?:no|any)\s+(?:actual\s+)?(?:image|picture|photo|audio|sound)"
    r"|no (?:image|picture|photo\w*|audio|sound)\b(?!\w)"
    r"|please (?:upload|share|attach|provide|send)|without (?:seeing|the picture|the image|an image|a picture|hearing)"
    r"|text[- ](?:only|based)|(?:unable|not able) to (?:view|see|access|open|process|display|hear|listen)"
    r"|(?:can't|cannot|can not|don't|do not) (?:actually |directly )?(?:view|see|access|open|process|hear|listen to) (?:the |any |an? |your )?"
    r"(?:image|picture|photo|visual|audio|sound)s?"
    r"|kein\w* (?:bild|foto|ton|audio)|aucune? (?:image|photo|son|audio)|ninguna? (?:imagen|foto|sonido|audio)"
    r"|nessun\w* (?:immagine|foto|suono|audio)|nenhuma? (?:imagem|foto|som|audio)|geen (?:afbeelding|foto|geluid)"
    r"|нет (?:изображения|картинки|фото|звука)|没有(?:看到|收到)?(?:图片|图像|音频)|画像(?:が|は)(?:ありません|見え)|이미지가 없"
)
# The model says that it cannot see or hear at all, whether or not there is something.
UNABLE = (
    r"text[- ](?:only|based)|unable to (?:view|see|access|open|process|display|hear|listen)|not able to (?:view|see|hear|listen)"
    r"|(?:can't|cannot|can not) (?:actually |directly )?(?:view|see|access|open|process|hear|listen to) (?:the |any |an? |your )?"
    r"(?:image|picture|photo|visual|audio|sound)s?|only (?:hear|listen|see|sounds?|pictures?|audio)"
)
# The model gives no answer, for whatever reason.
REFUSALS = (
    r"sorry|apologi[sz]e|unable|can't|cannot|can not|could not|couldn't|won't|not able|unsure|not sure|uncertain|don't know|do not know"
    r"|not certain|unclear|impossible|refuse|decline|policy|not allowed|not permitted|as an ai|i'd rather not|not comfortable|not possible"
    r"|leider|kann (?:ich )?nicht|weiss (?:ich |es )?nicht|desole|je ne peux pas|je ne sais pas|lo siento|no puedo|no se\b|mi dispiace"
    r"|non posso|non so|desculpe|nao posso|nao sei|helaas|kan niet|weet (?:ik )?(?:het )?niet|przepraszam|nie moge|nie wiem|не могу|не знаю"
    r"|извините|抱歉|无法|不知道|不能|申し訳|わかりません|できません|죄송|모르"
)
