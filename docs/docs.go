// Package docs holds the pages of this folder, for the demo to search in.
package docs

import "embed"

// Pages are the pages, by path.
//
//go:embed *.md adr/*.md
var Pages embed.FS
