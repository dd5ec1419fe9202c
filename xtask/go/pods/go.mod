module sample/pods

go 1.17
