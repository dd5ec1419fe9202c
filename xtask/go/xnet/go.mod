module sample/xnet

go 1.23.0

require (
	golang.org/x/net v0.30.0
	sample/self v0.0.0
)

require golang.org/x/text v0.19.0 // indirect

replace sample/self => ../self
