module sample/servers

go 1.17
