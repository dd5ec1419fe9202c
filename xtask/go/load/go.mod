module sample/load

go 1.24
