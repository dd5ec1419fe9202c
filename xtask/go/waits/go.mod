module sample/waits

go 1.17
