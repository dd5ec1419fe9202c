module sample/demo

go 1.22
