module sample/idioms

go 1.17
