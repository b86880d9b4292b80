package parse_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-data/sluice/vector/parse"
)

const lorem = "The offsets are kept with the data, in the same transaction, so that a crash loses nothing and repeats nothing. "

// sample makes a document of a type with about a hundred paragraphs.
func sample(kind string) []byte {
	var b strings.Builder
	each := func(n int, f func(i int) string) string {
		b.Reset()
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	text := strings.Repeat(lorem, 4)
	switch kind {
	case "pdf":
		p := &pdf{}
		for range 10 {
			p.pages = append(p.pages, strings.TrimRight(strings.Repeat(lorem[:len(lorem)-1]+"\n", 45), "\n"))
		}
		return p.bytes()
	case "docx":
		return docx(each(100, func(i int) string { return styled("berschrift2", fmt.Sprint("Section ", i)) + para(text) }), "word/styles.xml", wordStyles)
	case "pptx":
		slides := make([]string, 40)
		for i := range slides {
			slides[i] = shape("title", fmt.Sprint("Slide ", i)) + shape("body", strings.Repeat(lorem+"\n", 5)+"end")
		}
		return pptx(slides...)
	case "xlsx":
		return xlsx("<sheetData>" + each(2000, func(i int) string {
			return fmt.Sprintf(`<row r="%d"><c r="A%d" t="inlineStr"><is><t>customer %d</t></is></c><c r="B%d"><v>%d.5</v></c><c r="C%d"><v>7</v></c></row>`, i+1, i+1, i, i+1, i, i+1)
		}) + "</sheetData>")
	case "html":
		return []byte("<!doctype html><main>" + each(100, func(i int) string { return fmt.Sprintf("<h2>Section %d</h2>\n<p>%s <b>more</b></p>", i, text) }))
	case "md":
		return []byte(each(100, func(i int) string { return fmt.Sprintf("## Section %d\n\n%s\n\n- item\n- item\n\n", i, text) }))
	case "txt":
		return []byte(each(100, func(i int) string { return text + "\n\n" }))
	case "csv":
		return []byte("name,amount,day\n" + each(2000, func(i int) string { return fmt.Sprintf("customer %d,%d,2026-01-02\n", i, i) }))
	case "jsonl":
		return []byte(each(500, func(i int) string { return fmt.Sprintf("{\"id\": %d, \"text\": %q}\n", i, lorem) }))
	case "eml":
		return []byte("Received: x\r\nFrom: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + each(50, func(i int) string { return text + "\r\n\r\n" }))
	}
	return []byte("package main\n\n" + each(500, func(i int) string { return fmt.Sprintf("func f%d() int {\n\treturn %d\n}\n\n", i, i) }))
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkParse counts documents and MB of text for a second of CPU, which
// other work on the machine does not change.
func BenchmarkParse(b *testing.B) {
	for _, kind := range []string{"pdf", "docx", "pptx", "xlsx", "html", "md", "txt", "csv", "jsonl", "eml", "go"} {
		content := sample(kind)
		b.Run(kind, func(b *testing.B) {
			text, docs := 0, 0
			begun := cpuSeconds()
			for b.Loop() {
				doc, err := engine.Parse(b.Context(), parse.Input{Name: "x." + kind, Size: int64(len(content)), Body: bytes.NewReader(content)}, parse.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				text += len(doc.Text)
				docs++
			}
			cpu := cpuSeconds() - begun
			b.ReportMetric(float64(docs)/cpu, "docs/cpu-s")
			b.ReportMetric(float64(text)/1e6/cpu, "textMB/cpu-s")
		})
	}
}
