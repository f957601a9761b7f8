"""Writes rapidjson.txt: what Kinto's JSON (python-rapidjson, NM_NATIVE) makes of many documents.

Run with a Python that has python-rapidjson: python3 gen.py > rapidjson.txt
Line: quoted source, TAB, quoted result; or !quoted error; or ~quoted result where rapidjson rounds a double wrongly.
"""
import random

import rapidjson


def quote(b):
    out = []
    for c in b:
        if c in (34, 92):
            out.append("\\" + chr(c))
        elif 32 <= c < 127:
            out.append(chr(c))
        else:
            out.append("\\x%02x" % c)
    return '"' + "".join(out) + '"'


def misrounded(text, value):
    """A lone number whose double is not the nearest one."""
    try:
        return isinstance(value, float) and float(text) != value
    except ValueError:
        return False


seen = set()


def line(src):
    if isinstance(src, str):
        src = src.encode("utf-8", "surrogatepass")
    if src in seen:
        return
    seen.add(src)
    try:
        text = src.decode("utf-8")
        value = rapidjson.loads(text, number_mode=rapidjson.NM_NATIVE)
        out = rapidjson.dumps(value, bytes_mode=rapidjson.BM_NONE).encode()
        mark = "~" if misrounded(text, value) else ""
    except ValueError as e:
        out, mark = str(e).encode(), "!"
    print(quote(src) + "\t" + mark + quote(out))


FIXED = r"""1e5 1e21 1e22 1e20 123456789012345680000 1.0 -0.0 -0 0 1E400 -1e400 1e-400 NaN Infinity -Infinity nan Inf +1 - 1e 1e+ 0x1
18446744073709551615 18446744073709551616 -9223372036854775808 -9223372036854775809 9223372036854775808 123456789012345678901234567890
1e-5 0.0001 0.00001 5e-324 2.2250738585072014e-308 1.7976931348623157e308 1.7976931348623159e308 1e0 01 -01 1. .5 1.e1 1e308 1e309 0e0 -0e1 1e15 1e16 1e17
9007199254740993 9007199254740993.0 tru t true truee false fals null nul n [ ] { } [1 [1, [1,] [,1] {"a" {"a": {"a":1 {"a":1, {"a":1,} {,} {a:1} {1:2} {"a"} {"a":}
"\u0000" "\u001f" "\u007f" "\u0080" "\ud800" "\udc00" "\ud83d\ude00" "\ud83d\ud83d" "\ud83d\u0041" "\ud83dx" "\u12g4" "\u12 "\x" "\ "a'
"" {"":1} {"a":1,"b":2,"a":3} {"a":{"b":1,"b":2},"c":1,"a":{"d":1,"d":2}} {"\u0061":1,"a":2} {"A":1,"a":2} [[[]]] {"a":[{},{"b":null}]} /*c*/1 1//x 1,2 'a' 1x [1]x {}{} """.split()

rng = random.Random(3)
for s in FIXED:
    line(s)
for s in ['"', "", "  ", " 1 ", "\ufeff1", "1 2", "[1 2]", '{"a" 1}', "\x0b1", "\xa01", ' { "k" : [ 1 , 2 ] , "z" : { } } ', "\r\n[\t]\n", '"a\x01b"', '"\x7f"',
          '"é😀/<>&\'\u2028"', r'"\/\b\f\n\r\t\"\\"', '"a\nb"']:
    line(s)
for b in [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\xe2\x82', b'"\xf0\x9f\x98"', b'"\xf0\x9f\x98', b'"\xe2', b'[1,\x80]', b'x"\xff"', b'\xef\xbb\xbf{}', b'"\xe0\x80\x80"', b'"\xf0\x80\x80\x80"']:
    line(b)

for _ in range(500):  # any bits of a double, in its shortest form
    import struct
    f = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
    if f == f and abs(f) != float("inf"):
        line(repr(f))
for _ in range(550):  # everyday numbers
    line("%.*f" % (rng.randint(0, 7), rng.uniform(-1000, 1000)))
    line(str(rng.randint(-(10 ** rng.randint(1, 19)), 10 ** rng.randint(1, 19))))
for _ in range(500):  # shapes
    line("%s%s%s%s" % (rng.choice(["", "-"]), rng.choice(["0", str(rng.randint(1, 10 ** rng.randint(1, 20)))]),
                       rng.choice(["", ".%d" % rng.randint(0, 99999), ".000%d" % rng.randint(0, 9)]),
                       rng.choice(["", "e%d" % rng.randint(0, 25), "E-%d" % rng.randint(0, 25), "e+%d" % rng.randint(0, 25)])))
POOL = ['a', 'é', '😀', '"', '\\', '\\n', '\\u00e9', '\\u000B', '\\ud83d\\ude00', '/', '\\/', '\x7f', '\u2028', '漢', ' ', '\\t', '{', ',', '\\"', '\\\\', '\\uD800', '\x1f', '\\u0022', '\\u005c']
for _ in range(700):
    line('"' + "".join(rng.choice(POOL) for _ in range(rng.randint(0, 8))) + '"')


def doc(depth):
    k = rng.randint(0, 7 if depth < 4 else 4)
    if k == 0:
        return rng.choice(["null", "true", "false"])
    if k <= 2:
        return str(rng.randint(-999, 999) / rng.choice([1, 2, 4]))
    if k <= 4:
        return '"' + rng.choice("abé") + '"'
    ws = lambda: rng.choice(["", "", " ", "\n"])
    if k == 5:
        return "[" + ",".join(ws() + doc(depth + 1) + ws() for _ in range(rng.randint(0, 3))) + "]"
    return "{" + ",".join('"%s"%s:%s' % (rng.choice("abc"), ws(), doc(depth + 1)) for _ in range(rng.randint(0, 4))) + "}"


for _ in range(400):
    d = "{" + ",".join('"%s":%s' % (rng.choice("abcd"), doc(1)) for _ in range(rng.randint(1, 5))) + "}"
    if len(d) < 200:
        line(d)
        if rng.random() < 0.5:  # damaged documents: the offsets and words of errors
            i = rng.randrange(len(d))
            line(d[:i] + rng.choice(["", ",", "}", "]", '"', ":", "x", " 1"]) + d[i + 1:])
