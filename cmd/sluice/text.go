package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func splitLines(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }

// grouped writes 81204113 as 81,204,113.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// lasting writes a duration for people: 0.4 s, 12 min, 3 d 4 h.
func lasting(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// aligned lays rows out in columns; numbers, marked in right, end flush.
func aligned(rows [][]string, right ...int) string {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			cell = strings.ReplaceAll(cell, "\n", "; ") // of joined errors
			r[i] = cell
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	flush := map[int]bool{}
	for _, i := range right {
		flush[i] = true
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			pad := strings.Repeat(" ", widths[i]-width(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if flush[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

func width(s string) int { return len([]rune(s)) }

// short cuts a long id: 7741… .
func short(id string) string {
	if len(id) <= 8 {
		return id
	}
	return id[:6] + "…"
}

// commitName shows the last commit of a sink: a snapshot by its number,
// anything else by its words.
func commitName(id string) string {
	if strings.Contains(id, " ") {
		return id
	}
	return "snapshot " + short(id)
}
