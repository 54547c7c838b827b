"""Where sentences end: languages, abbreviations, scripts, and lines of any length."""

from __future__ import annotations

import re
import warnings
import zipfile
from functools import partial

import pytest
import sentencex
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.segmentation import f1_of_ends, treebanks
from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import ParameterError
from elmolib.settings.parameters import TextSettings
from elmolib.text import sentences
from elmolib.text.sentences import MAX_PIECE, rules_for, split_sentences
from elmolib.text.tokenizer import Tokenizer

SPELLINGS = {
    "de": ("de", "DE", "de-AT", "de_DE", "deu", "ger", "DE_ch", "de-Latn-DE", "de-1996"),
    "ro": ("ro", "RO", "ro_RO", "ron", "rum", "mol", "ro-MD"),
    "pt": ("pt", "PT", "pt-BR", "pt_br", "por"),
    "es": ("es", "es-MX", "es-419", "spa"),
    "el": ("el", "el-GR", "ell", "gre"),
    "fr": ("fr", "fr-CA", "fra", "fre"),
    "zh": ("zh", "zho", "chi", "cmn", "zh-Hant-TW", "zh_CN"),
    "ar": ("ar", "ara", "arb", "ar-EG"),
    "fa": ("fa", "fas", "per", "pes"),
    "sr": ("sr", "srp", "sr-Latn", "sr_RS", "sh"),
    "nb": ("nb", "nob", "nb_NO"),
    "he": ("he", "iw", "heb"),
}

ABBREVIATIONS = {
    "en": "Dr. Brown met Mr. Green. They ate.",
    "de": "Herr Maier bzw. Prof. Kurz kam am 3. Oktober an, z. B. Montag. Es regnete.",
    "ro": "Dl. Popescu și dna. Ionescu stau pe str. Lungă nr. 5. Plouă.",
    "fr": "M. Dupont et Mme. Durand voient Mgr. Blanc. Il pleut.",
    "es": "La Sra. Ruiz y el Dr. Gil viven en la av. Mayor. Llovía.",
    "pt": "A Dra. Costa e o Exmo. Sr. Reis chegaram. Choveu.",
    "it": "Il sig. Rossi e la dott.ssa Bianchi parlano con l'avv. Verdi. Piove.",
    "ca": "El Sr. Puig i la Sra. Vila són a l'av. Diagonal. Plou.",
    "nl": "Dhr. De Vries en mevr. Jansen zien drs. Bakker. Het regent.",
    "sv": "Hr. Berg och prof. Lind läser t.ex. Strindberg. Det regnar.",
    "da": "Hr. Jensen læser bl.a. Kierkegaard for Christian 4. Sørensen. Det regner.",
    "nb": "Hr. Hansen leser f.eks. Ibsen med frk. Dahl. Det regner.",
    "fi": "Prof. Virtanen tapasi mm. Hra. Korhosen. Sataa.",
    "et": "Hr. Tamm nägi prof. Kaske. Sajab.",
    "cs": "Pan Ing. Novák a MUDr. Svoboda viděli sv. Víta. Prší.",
    "sk": "Pán Ing. Novák a MUDr. Kováč videli sv. Martina. Prší.",
    "pl": "Ks. Kowalski i prof. Nowak mieszkają na ul. Długiej. Pada.",
    "ru": "Проф. Иванов живёт на ул. Ленина, им. Гоголя. Идёт дождь.",
    "uk": "Проф. Іваненко живе на вул. Шевченка. Йде дощ.",
    "bg": "Проф. Иванов живее на ул. Раковски. Вали.",
    "sr": "Проф. Јовић живи у ул. Ниша. Пада киша.",
    "hr": "Prof. Horvat i dr. Kovač žive u ul. Zagreba. Pada kiša.",
    "hu": "Dr. Nagy és özv. Kissné lakik a Fő u. Budán. Esik.",
    "tr": "Prof. Yılmaz ile Doç. Kaya 2. Dünya Savaşı'nı anlattı. Yağmur yağıyor.",
    "el": "Ήρθε ο κ. Νίκου με τον καθ. Παπά. Έφυγε.",
    "lt": "Prof. Jonaitis gyvena šv. Jono gatvėje. Lyja.",
    "lv": "Prof. Bērziņš skatās sv. Pētera baznīcu. Līst.",
    "sl": "Prof. Novak in ga. Kos sta v ul. Tivoli. Dežuje.",
    "hi": "डॉ. सिंह आए। वे बैठे।",
    "id": "Bpk. Budi dan Ny. Sari tinggal di Jl. Merdeka. Hujan.",
    "vi": "TS. Nguyễn gặp PGS. Trần ở TP. Huế. Trời mưa.",
}

MARKS = {
    "km": "ខ្ញុំឈ្មោះសុខ។ អ្នកឈ្មោះអ្វី៕ បាទ។",
    "bo": "བོད་ཡིག་ཡིན། ང་དགའ། བཀྲ་ཤིས།།",
    "my": "နေကောင်းလား။ ကောင်းတယ်။ ဟုတ်ကဲ့။",
    "am": "ሰላም ነው። ደህና ነኝ። አዎ።",
    "hy": "Բարև։ Ես եկա։ Այո։",
    "hi": "मैं आया। वह गया। हाँ।",
    "ar": "كيف حالك؟ أنا بخير. نعم.",
    "ur": "آپ کیسے ہیں؟ میں ٹھیک ہوں۔ جی۔",
    "el": "Πού είναι; Εδώ. Ναι.",
    "zh": "他来了。“谁？”《红楼梦》！",
    "ja": "彼は来た。「だれ？」『終』という本。",
    "ko": "그가 왔다. “누구?” 그는 갔다.",
}


def split(text: str, language: str) -> list[str]:
    parts = list(split_sentences(text, language))
    assert "".join(parts) == text
    return [part.strip() for part in parts if part.strip()]


@pytest.mark.parametrize(
    ("code", "spelling"), [(code, each) for code, spelt in SPELLINGS.items() for each in spelt]
)
def test_a_language_has_the_same_rules_in_any_spelling(code, spelling):
    tokenizer = Tokenizer(language=spelling)
    parameters = TextSettings(text="t.txt", run_dir="run", language=spelling)
    assert rules_for(tokenizer.language) == rules_for(parameters.language) == code
    assert Tokenizer.from_json(Tokenizer().to_json() | {"language": spelling}) == tokenizer
    text = ABBREVIATIONS.get(code, MARKS.get(code, "א. ב ג. ד."))
    assert tokenizer.sentences(text) == Tokenizer(language=code).sentences(text)


@given(st.from_regex(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+){0,3}", fullmatch=True))
def test_any_code_is_refused_or_has_rules(code):
    try:
        language = Tokenizer(language=code).language
    except ParameterError as error:
        assert str(error).startswith("language must be a language code such as en, not ")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert split("One. Two.", language) == ["One.", "Two."]


@pytest.mark.parametrize("language", ["xx", "cy", "ta-IN"])
def test_a_language_without_rules_is_said_once(language, tmp_path):
    (tmp_path / "text.txt").write_text("Un. Dau. Tri.\n" * 3, encoding="utf-8")
    rules_for.cache_clear()
    parameters = TextSettings(
        text=str(tmp_path / "text.txt"), run_dir=str(tmp_path / "run"), language=language
    )
    with pytest.warns(UserWarning, match=f"no rules for sentences .* {language!r}, so elmolib"):
        prepare_corpus(parameters, processes=1)
    assert split("Un. Dau.", language) == ["Un.", "Dau."]


def test_helper_processes_do_not_repeat_the_warning(tmp_path, capfd):
    (tmp_path / "text.txt").write_text("Un. Dau. Tri.\n" * 9, encoding="utf-8")
    rules_for.cache_clear()
    parameters = TextSettings(
        text=str(tmp_path / "text.txt"), run_dir=str(tmp_path / "run"), language="cy"
    )
    with pytest.warns(UserWarning, match="no rules for sentences"):
        corpus = prepare_corpus(parameters, processes=2, chunk_bytes=40)
    assert corpus.train.n_sentences == 27
    assert "no rules" not in capfd.readouterr().err


@pytest.mark.parametrize("language", ABBREVIATIONS)
def test_abbreviations_end_no_sentence(language):
    assert len(split(ABBREVIATIONS[language], language)) == 2


@pytest.mark.parametrize("language", MARKS)
def test_the_marks_of_each_script_end_sentences(language):
    assert len(split(MARKS[language], language)) == 3


@pytest.mark.parametrize(
    ("language", "text", "n"),
    [
        ("ro", "Piesa lui I. L. Caragiale place. Da.", 2),  # initials
        ("ro", "— Vii? — întrebă ea. — Nu! – Ba da.", 3),  # no sentence begins with a small letter
        ("fi", "Jaaha. – Etkö usko? - Niin.", 3),  # a dash begins what the next speaker says
        ("ro", "1. Se spală. 3.4.2. Se usucă.", 2),  # a number begins the sentence after it
        ("ru", "Это было в 1998 г. Он уехал.", 2),  # the abbreviation г. often ends a sentence
        ("ko", '"좋은 것 같다."고 말했다. 갔다.', 2),  # a particle continues after the quotation
        ("de", "Er kam 1998. Sie blieb.", 2),
        ("th", "สวัสดีชาวโลก", 1),
    ],
)
def test_sentences_go_on_where_their_language_says_so(language, text, n):
    assert len(split(text, language)) == n


def test_each_word_of_the_table_is_written_as_it_is_looked_up():
    for language, words in sentences._abbreviations().items():
        assert all(word == word.lower() and not word.endswith(".") for word in words)
        if language not in ("*", "en"):
            assert all(len(split(f"Ab {word}. Ab.", language)) == 1 for word in words - {"1"})


LINES = {
    "en": "He came yesterday. What do you say? ",
    "en, unclosed": "“He came. ",
    "en, Chinese": "他来了。你说什么呢？",
    "zh": "他昨天来了，可是我没有看见他。你说什么呢？",
    "ja": "彼は昨日来たが、私は会わなかった。何だって？",
    "ro, closed": "El a zis: „Da, vin.” Apoi a plecat. ",
    "fr, unclosed": "Il est venu « hier. ",
    "da": "Han kom i går. Hvad siger du? ",
    "de, abbreviations": "Dr. ",
    "bo": "བོད།",
    "en, no end": "x",
}


@pytest.mark.parametrize("kind", LINES)
def test_the_work_is_proportional_to_the_line(kind, monkeypatch):
    """ICU and sentencex get each character once, and sentencex at most 4,096 of them per call."""
    handed: dict[str, list[int]] = {"icu": [], "sentencex": []}
    icu, english = sentences.SentenceBreaker, sentencex.segment

    def count_icu(text, locale):
        handed["icu"].append(len(text))
        return icu(text, locale)

    def count_sentencex(language, text):
        handed["sentencex"].append(len(text))
        return english(language, text)

    monkeypatch.setattr(sentences, "SentenceBreaker", count_icu)
    monkeypatch.setattr(sentencex, "segment", count_sentencex)
    n = 200_000
    line = (LINES[kind] * n)[:n]
    parts = list(split_sentences(line, kind[:2]))
    assert "".join(parts) == line
    assert sum(handed["icu"]) <= n
    assert sum(handed["sentencex"]) <= n
    assert max(handed["sentencex"], default=0) <= MAX_PIECE
    ends = len(re.findall("[.?。？།]", line))
    if kind not in ("de, abbreviations", "en, unclosed", "fr, unclosed", "ro, closed"):
        assert ends <= len(parts) <= ends + 1


@given(
    st.text(st.characters(), max_size=300), st.sampled_from(["en", "de", "zh", "bo", "ko", "el"])
)
def test_sentences_joined_are_the_line(text, language):
    split(text.encode("utf-16", "replace").decode("utf-16"), language)


@given(st.text(st.sampled_from("aB1. ?!\"“”。「」《། ་ک\u2028'-()"), max_size=60))
def test_a_long_line_is_split_like_its_pieces(text):
    for language in ("en", "zh", "bo"):
        split(text * 3, language)


def test_english_is_split_by_sentencex():
    text = 'Dr. Brown said "Stop. Now." He (i.e. Mr. Brown) left at 5 p.m. and it\'s 3.5 km. OK? '
    assert list(split_sentences(text, "en-GB")) == sentencex.segment("en", text)
    assert list(split_sentences(text * 100, "en")) == sentencex.segment("en", text) * 100


def test_text_without_an_end_needs_no_icu(monkeypatch):
    """Text that is not given to ICU has only characters that end no sentence by ICU's rules."""
    characters = [c for c in map(chr, range(0x110000)) if not 0xD800 <= ord(c) < 0xE000]
    harmless = [c for c in characters if sentences._ONE_SENTENCE.fullmatch(f"a{c}Ba")]
    assert len(harmless) > 100_000
    text = "".join(f"a{c} B" for c in harmless)
    for locale in ("und", "el"):
        assert len(list(sentences.SentenceBreaker(text, locale))) == 1


@pytest.mark.shared
def test_sentences_are_found_as_well_as_by_sentencex_alone(shared):
    n = 0
    for name, language, gold in treebanks(shared / "data"):
        if "train" not in name:
            n += 1
            ours = f1_of_ends(partial(split_sentences, language=language), language, gold)
            assert ours >= f1_of_ends(partial(sentencex.segment, language), language, gold), name
    assert n > 20


@pytest.mark.shared
def test_khmer_and_tibetan_texts_have_sentences(shared):
    with zipfile.ZipFile(shared / "data" / "multilingual" / "udhr2.zip") as archive:
        for name, mark in (("khm", "។"), ("bod", "།")):
            text = archive.read(f"udhr2/{name}.txt").decode().replace("\n", " ")
            assert len(split(text, name)) > 0.4 * text.count(mark) > 20
