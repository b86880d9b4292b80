package parse

import (
	"context"
	"strings"
)

// textParser reads plain text: paragraphs are parted by empty lines.
type textParser struct{}

// wholeText is the file as clean UTF-8.
func wholeText(in *Source, out *Writer) (string, error) {
	raw, err := in.Bytes()
	if err != nil {
		return "", err
	}
	text, replaced := decode(raw, in.charset)
	if replaced {
		out.Warn(WarnReplaced)
	}
	return clean(text), nil
}

func (textParser) Parse(_ context.Context, in *Source, out *Writer) error {
	text, err := wholeText(in, out)
	if err != nil {
		return err
	}
	if err := out.Verbatim(text); err != nil {
		return err
	}
	return markParagraphs(out, text, 0, len(text))
}

// markParagraphs marks text[start:end] as paragraphs.
func markParagraphs(out *Writer, text string, start, end int) error {
	open, last := -1, 0
	for at := start; at < end; {
		next := lineEnd(text, at, end)
		if strings.TrimSpace(text[at:next]) == "" {
			if open >= 0 {
				if err := out.Mark(Paragraph, 0, "", "", open, last); err != nil {
					return err
				}
				open = -1
			}
		} else {
			if open < 0 {
				open = at
			}
			last = at + len(strings.TrimRight(text[at:next], " \t\n"))
		}
		at = next
	}
	if open >= 0 {
		return out.Mark(Paragraph, 0, "", "", open, last)
	}
	return nil
}

// lineEnd is the place after the line that begins at, end at most.
func lineEnd(text string, at, end int) int {
	if i := strings.IndexByte(text[at:end], '\n'); i >= 0 {
		return at + i + 1
	}
	return end
}

// codeParser reads source text as one block.
type codeParser struct{}

func (codeParser) Parse(_ context.Context, in *Source, out *Writer) error {
	text, err := wholeText(in, out)
	if err != nil {
		return err
	}
	if err := out.Verbatim(text); err != nil {
		return err
	}
	body := strings.TrimRight(text, " \t\n")
	start := len(body) - len(strings.TrimLeft(body, "\n"))
	if start == len(body) {
		return nil
	}
	return out.Mark(Listing, 0, languageOfFile(in.Name), "", start, len(body))
}
