package mappers

func (b *builder) derive(d *Derive) {
	b.fail("cel", "", CodeRule, "this program cannot run expressions")
}
func checkCEL(string) *syntaxError { return nil }
