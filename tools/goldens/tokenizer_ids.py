"""Writes small tokenizers and the ids that `transformers` gets from them.

    python tools/goldens/tokenizer_ids.py tests/data/tokenizers

Needs transformers 5 and tokenizers 0.23. Each folder holds either vocabulary files or a
`tokenizer.json`, and `golden.json`, except that `NAME-json` shares that of `NAME`.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizerFast, RobertaTokenizerFast

CORPUS = """The quick brown fox jumps over the lazy dog while the small children watch from the garden.
A film can be slow and still be wonderful; this one was slow, dull and far too long.
Nobody in the audience believed the ending, and the reviewer called it unbelievable nonsense.
She sells sea shells by the sea shore, and the shells that she sells are surely sea shells.
Models of language are trained on numbers: 0 1 2 3 4 5 6 7 8 9, 10, 100, 1999, 2024.
The café in Zürich was naïve enough to serve crème brûlée at 3 p.m. to Ångström's cousin.
Привет мир, как дела? Γειά σου Κόσμε. 你好 世界 今天 天气 很 好。 こんにちは 世界
It's what they'd said: we're sure that you'll find it, haven't you? I'm certain he's right!
Quantization makes the weights smaller, tokenization makes the words smaller.
"Quoted", (bracketed), [squared], {curly}, <angled> -- and a/b c+d e=f #tag @name 50% $5 ~x ^y &z *w
""".splitlines()

LINES = [
    "", " ", "   ", "\n", "\t \r\n", "a", "A", ".", "...", "hello", " hello", "hello ", "  hello  world  ",
    "The quick brown fox.", "THE QUICK BROWN FOX!", "unbelievable tokenization",
    "It's they'd we're you'll haven't I'm he's", "don't don’t DON'T", "0123456789 1,999.50 -3e-7",
    "café cafe\u0301 CAFÉ Zürich naïve", "a\u0300\u0301\u0302\u0303b", "\u0301", "ﬁne ﬂow ½ ² Ⅳ", "İstanbul ISTANBUL ıI ß ẞ",
    "Привет мир", "ПРИВЕТ", "Γειά σου ΣΊΣΥΦΟΣ ς", "你好世界", "今天 天气很好。mixed 中文text", "こんにちは", "コンニチハ", "한국어 조선말",
    "𠀀𠮷 CJK extension", "שלום עולם", "مرحبا بالعالم", "हिन्दी में", "ไทย", "🙂", "👩‍👩‍👧‍👦 family", "🇨🇭 flag 👍🏽 ok", "a🙂b",
    "zero\u200bwidth\u200djoin\ufeffbom", "soft\u00adhyphen", "nbsp\u00a0here\u2003em\u3000ideographic", "line\u2028sep\u2029para\x85nel",
    "ctrl\x00\x01\x02\x1f\x7f\x80end", "tab\tseparated\tvalues", "back\\slash \"quote\" 'single'", "\ufffd replacement \ue000 private \uffff",
    "x" * 99, "x" * 100, "x" * 101, "ab" * 120 + " tail", "a " * 40,
    "[CLS] [SEP] [PAD] [UNK] [MASK]", "text[SEP]text", "[sep] [ SEP ] [SEP", "[MASK]", "  [MASK]  x",
    "<s> </s> <pad> <unk> <mask>", "text</s>text", "hello <mask> world", "hello  <mask>  world", "<mask>", "<S> < s > <s",
    "##ing ##a # #", "http://example.org/a?b=c&d=e#f user@example.org", "snake_case CamelCase kebab-case",
    "!!!???...---", "a.b,c;d:e", "~`^|<>{}[]", "©®™ €£¥ §¶ ±×÷", "“curly” ‘quotes’ – — …", "₂⁵ ℃ Å",
    "new1 newtoken tok_new NEW1", "a<new2>b <new2> c", "e\u0323\u0307 \u1e69 s\u0323\u0307",
]
PAIRS = [
    ("", ""), ("a", ""), ("", "b"), ("The quick brown fox", "jumps over the lazy dog."), ("你好", "世界 🙂"),
    ("Is it [SEP] or </s>?", "<mask> [MASK]"), ("x" * 101, "café"), (" lead", "trail "),
]
LONG = "the film was slow and the ending of this wonderful story was unbelievable nonsense "
CUTS = [
    (LONG, None), (LONG, "a small dog"), ("a small dog", LONG), (LONG, LONG[:40]), (LONG[:40], LONG), (LONG, LONG),
    ("你好世界 " * 9, "🙂 " * 9), ("short", None), ("short", "pair"), ("", LONG), (LONG, ""),
]
LIMITS = [2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 32, 1000]


def golden(tokenizer, cuts):
    def case(text, pair, limit=None):
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        # As lists: a lone empty second text would count as none.
        texts = ([text],) if pair is None else ([text], [pair])
        out = tokenizer(*texts, return_token_type_ids=True, padding=False, **({"truncation": False} | cut))
        ids, types = out["input_ids"][0], out["token_type_ids"][0]
        # The first text has type 0 in every family, so only the ones are counted.
        assert types == [0] * (len(types) - sum(types)) + [1] * sum(types)
        return {"text": text, "pair": pair, "limit": limit, "ids": ids, "ones": sum(types)}

    cases = [case(line, None) for line in LINES] + [case(a, b) for a, b in PAIRS]
    for text, pair in CUTS if cuts else []:
        least = tokenizer.num_special_tokens_to_add(pair is not None)
        cases += [case(text, pair, limit) for limit in LIMITS if limit >= least]
    return cases


def write(folder, files, kind, cuts=True, same_as=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    tokenizer = kind.from_pretrained(folder)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in golden(tokenizer, cuts))
    lines = f"[\n{lines}\n]\n"
    if same_as is None:
        (folder / "golden.json").write_text(lines, encoding="utf-8", newline="\n")
    else:
        assert (same_as / "golden.json").read_text(encoding="utf-8") == lines
    return tokenizer


def with_limits(tokenizer):
    """The tokenizer.json, with a truncation and a padding that must have no effect."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    return backend.to_str()


def wordpiece(out, lower):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=420, special_tokens=special))
    vocab = tokenizer.get_vocab()
    lines = "".join(token + "\n" for token in sorted(vocab, key=vocab.get))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower, "model_max_length": 512}
    name = "bert-uncased" if lower else "bert-cased"
    result = write(out / name, {"vocab.txt": lines, "tokenizer_config.json": config}, BertTokenizerFast)
    if lower:
        files = {"tokenizer.json": with_limits(result), "tokenizer_config.json": config}
        write(out / f"{name}-json", files, BertTokenizerFast, same_as=out / name)
        # Accents kept, Chinese characters not split, and the file's own lowercasing overruled.
        odd = config | {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}
        write(out / f"{name}-overruled", {**files, "tokenizer_config.json": odd}, BertTokenizerFast, cuts=False)
        odd = config | {"strip_accents": False, "tokenize_chinese_chars": False}
        write(out / f"{name}-accents", {"vocab.txt": lines, "tokenizer_config.json": odd}, BertTokenizerFast, cuts=False)


def byte_level(out):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=620, special_tokens=special, initial_alphabet=alphabet)
    )
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"] | {"<mask>": len(model["vocab"])}
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"])
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": False,
            "rstrip": False, "single_word": False}
    config = {"tokenizer_class": "RobertaTokenizer", "mask_token": mask, "model_max_length": 512}
    files = {"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": config}
    result = write(out / "roberta", files, RobertaTokenizerFast)
    write(out / "roberta-json", {"tokenizer.json": with_limits(result), "tokenizer_config.json": config},
          RobertaTokenizerFast, same_as=out / "roberta")
    added = {str(len(vocab)): {"content": "new1", "lstrip": False, "normalized": True, "rstrip": False,
                               "single_word": True, "special": False},
             str(len(vocab) + 1): {"content": "<new2>", "lstrip": False, "normalized": False, "rstrip": True,
                                   "single_word": False, "special": True}}
    files["tokenizer_config.json"] = config | {"add_prefix_space": True, "added_tokens_decoder": added}
    write(out / "roberta-added", files, RobertaTokenizerFast, cuts=False)


def main():
    out = Path(sys.argv[1])
    wordpiece(out, lower=True)
    wordpiece(out, lower=False)
    byte_level(out)


if __name__ == "__main__":
    main()
