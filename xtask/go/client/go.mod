module sample/client

go 1.17

require sample/self v0.0.0

replace sample/self => ../self
