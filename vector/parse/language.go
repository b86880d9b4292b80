package parse

import (
	"strings"
	"unicode"
)

// stopWords are the commonest words of languages written in Latin letters;
// only those that tell one language from its neighbours.
var stopWords = map[string]string{
	"en": "the and of to is that for with are this from was which be not you have it on by or as an can will when",
	"de": "der die und das ist nicht mit von den auf für ein eine zu im dem werden wird sich auch oder wenn kann nach bei",
	"fr": "le les des est une pour dans que qui pas sur avec ce au par plus sont du cette être vous nous ou et la",
	"es": "el los las que una para con por es del se como más pero sus este está son al lo cuando puede y en la",
	"it": "il che di una per non con sono della del gli è si le nel anche come più alla questo dei o da un la",
	"pt": "os que uma para com não por são do da em se como mais dos ao pelo você está pode ou no na um o",
	"nl": "het een van en is dat niet op te zijn voor met ook aan worden wordt deze door bij als naar kan of de",
	"sv": "och att det som är en på av för med den till inte om har ett kan från eller när ska",
	"da": "og at det er en til af på som for med den ikke der har kan et eller fra vil skal når",
	"nb": "og det er en til av på som for med ikke den har kan et eller fra vil skal når også være",
	"fi": "ja on ei se että tai kun ovat oli hän mutta myös kuin joka voi jos sen niin ole olla",
	"pl": "i w na nie się z do to jest że o jak za po od przez dla oraz lub może są tym który",
	"cs": "a je v se na že s z do to pro jako nebo ale by jsou byl tak po které může není",
	"tr": "ve bir bu için ile da de olarak daha çok olan gibi kadar veya ne değil sonra ama her",
}

// language tells the main language of a text by its script and its commonest
// words; "" where the evidence is thin.
func language(text string) string {
	sample := cut(text, 16<<10)
	counts := map[*unicode.RangeTable]int{}
	letters := 0
	for _, r := range sample {
		if r < 0x250 {
			if r|0x20 >= 'a' && r|0x20 <= 'z' || r >= 0xc0 {
				letters++
			}
			continue
		}
		for _, s := range scripts {
			if unicode.Is(s.table, r) {
				// One sign of these scripts stands for several letters.
				counts[s.table] += s.weight
				letters += s.weight
				break
			}
		}
	}
	for _, s := range scripts {
		if letters > 0 && counts[s.table]*3 > letters {
			if s.table == unicode.Han && counts[unicode.Hiragana]*10 > counts[unicode.Han] {
				return "ja"
			}
			return s.language
		}
	}
	return byStopWords(sample)
}

var scripts = []struct {
	table    *unicode.RangeTable
	language string
	weight   int
}{
	{unicode.Hiragana, "ja", 2}, {unicode.Katakana, "ja", 2}, {unicode.Hangul, "ko", 2}, {unicode.Han, "zh", 3},
	{unicode.Cyrillic, "ru", 1}, {unicode.Arabic, "ar", 1}, {unicode.Hebrew, "he", 1}, {unicode.Greek, "el", 1},
	{unicode.Thai, "th", 1}, {unicode.Devanagari, "hi", 1},
}

var stopIndex = func() map[string][]string {
	index := map[string][]string{}
	for lang, words := range stopWords {
		for _, w := range strings.Fields(words) {
			index[w] = append(index[w], lang)
		}
	}
	return index
}()

func byStopWords(sample string) string {
	hits, words := map[string]int{}, 0
	for word := range strings.FieldsFuncSeq(strings.ToLower(sample), func(r rune) bool { return !unicode.IsLetter(r) }) {
		words++
		for _, lang := range stopIndex[word] {
			hits[lang]++
		}
	}
	best, second := "", 0
	for lang, n := range hits {
		switch {
		case best == "" || n > hits[best] || n == hits[best] && lang < best:
			if best != "" {
				second = max(second, hits[best])
			}
			best = lang
		default:
			second = max(second, n)
		}
	}
	if best == "" || hits[best] < 3 || hits[best]*12 < words || hits[best] == second {
		return ""
	}
	return best
}
