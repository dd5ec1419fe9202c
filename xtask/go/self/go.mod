module sample/self

go 1.17
