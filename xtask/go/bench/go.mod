module sample/bench

go 1.22

require sample/self v0.0.0

replace sample/self => ../self
