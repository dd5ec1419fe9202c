module sample/pause

go 1.17
