module sample/frameworks

go 1.26.0

require (
	github.com/emicklei/go-restful/v3 v3.14.0
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0
	sample/self v0.0.0
)

require (
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20261026165753-2ffab32bce7e // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
	google.golang.org/grpc v1.84.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace sample/self => ../self
