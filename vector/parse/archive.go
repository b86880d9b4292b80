package parse

import (
	"archive/zip"
	"io"
)

// archive is a zip file read in place: names are only compared, never used as
// a path, and everything that is expanded counts against one budget.
type archive struct {
	zip    *zip.Reader
	names  map[string]*zip.File
	budget *int64
	limits Limits
}

const maxEntries = 20_000

func openArchive(at io.ReaderAt, size int64, limits Limits) (*archive, error) {
	z, err := zip.NewReader(at, size)
	if err != nil {
		return nil, reject(CodeBroken, "not a readable zip file")
	}
	if len(z.File) > maxEntries {
		return nil, reject(CodeBomb, "%d entries; %d are allowed", len(z.File), maxEntries)
	}
	budget := limits.ExpandedBytes
	a := &archive{zip: z, names: make(map[string]*zip.File, len(z.File)), budget: &budget, limits: limits}
	for _, f := range z.File {
		if _, double := a.names[f.Name]; !double {
			a.names[f.Name] = f
		}
	}
	return a, nil
}

func (a *archive) file(name string) *zip.File { return a.names[name] }

// typed tells whether the content types name the kind.
func (a *archive) typed(string) bool { return false }
