module sample/hostile

go 1.17
