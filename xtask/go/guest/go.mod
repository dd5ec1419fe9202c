module sample/guest

go 1.21
