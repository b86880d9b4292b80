package vector_test

func crashChild([]string) {}
