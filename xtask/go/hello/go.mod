module sample/hello

go 1.17
