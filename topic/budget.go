package topic

type budget struct{ limit int64 }
