package canon

import (
	"cmp"
	"math"
	"strconv"
)

// number rewrites the number at pos. Integers of 64 bits stay exact, longer ones become doubles as in Kinto. Doubles are
// rounded correctly; Kinto's rapidjson is a few units in the last place off for more than 15 digits, which would not be idempotent.
func (p *parser) number() error {
	start := p.pos
	if p.peek() == '-' {
		p.pos++
	}
	switch c := p.peek(); {
	case c == '0':
		p.pos++
	case c >= '1' && c <= '9':
		p.digits()
	default:
		return p.fail(p.pos, "Invalid value.")
	}
	integer := true
	if p.peek() == '.' {
		integer = false
		p.pos++
		if !p.digits() {
			return p.fail(p.pos, "Miss fraction part in number.")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		integer = false
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return p.fail(p.pos, "Miss exponent in number.")
		}
	}
	lexeme := p.src[start:p.pos]
	if integer && isInt64ish(lexeme) {
		if string(lexeme) == "-0" {
			lexeme = lexeme[1:]
		}
		p.dst = append(p.dst, lexeme...)
		return nil
	}
	f, err := strconv.ParseFloat(string(lexeme), 64)
	if err != nil {
		return p.fail(start, "Number too big to be stored in double.")
	}
	p.dst = AppendFloat(p.dst, f)
	return nil
}

func (p *parser) digits() bool {
	start := p.pos
	for p.pos < len(p.src) && p.src[p.pos] >= '0' && p.src[p.pos] <= '9' {
		p.pos++
	}
	return p.pos > start
}

// isInt64ish reports whether a lexeme of an optional sign and digits fits int64 or uint64.
func isInt64ish(lexeme []byte) bool {
	if len(lexeme) < 19 {
		return true
	}
	if len(lexeme) > 20 {
		return false
	}
	var err error
	if lexeme[0] == '-' {
		_, err = strconv.ParseInt(string(lexeme), 10, 64)
	} else {
		_, err = strconv.ParseUint(string(lexeme), 10, 64)
	}
	return err == nil
}

// AppendFloat appends a finite double in Kinto's form, which is that of Python's repr: the shortest digits that read back,
// a fraction always (1.0), an exponent below 1e-4 and from 1e16 on, of at least two digits and with its sign (1e+16).
func AppendFloat(dst []byte, f float64) []byte {
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, '.', '0')
}

// num is a number made comparable: integers of up to 64 bits by sign and magnitude, whichever way they were written,
// all others as doubles.
type num struct {
	integer bool
	neg     bool
	mag     uint64
	f       float64
}

// twoTo64 is the first integer beyond uint64.
const twoTo64 = 1 << 64

func parseNum(v Value) num {
	if len(v) > 0 && v[0] == '-' {
		if mag, err := strconv.ParseUint(string(v[1:]), 10, 64); err == nil {
			return num{integer: true, neg: mag != 0, mag: mag, f: -float64(mag)}
		}
	} else if mag, err := strconv.ParseUint(string(v), 10, 64); err == nil {
		return num{integer: true, mag: mag, f: float64(mag)}
	}
	f, _ := strconv.ParseFloat(string(v), 64)
	if abs := math.Abs(f); abs < twoTo64 && abs == math.Trunc(abs) {
		return num{integer: true, neg: f < 0, mag: uint64(abs), f: f}
	}
	return num{f: f}
}

// compareNumbers is exact also between 2^63 and a double near it, where a comparison of doubles would not be.
func compareNumbers(a, b Value) int {
	x, y := parseNum(a), parseNum(b)
	if !x.integer || !y.integer {
		// A double that is no 64-bit integer is either below 2^53 with a fraction or at least 2^64: rounding the other side
		// to a double keeps the order, except that 2^64-1 becomes 2^64.
		if x.f == y.f && x.integer != y.integer {
			if x.integer == (x.f > 0) {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.f, y.f)
	}
	if x.neg != y.neg {
		if x.neg {
			return -1
		}
		return 1
	}
	if x.neg {
		return cmp.Compare(y.mag, x.mag)
	}
	return cmp.Compare(x.mag, y.mag)
}
