package main

import (
	"net/http"

	restful "github.com/emicklei/go-restful/v3"
)

func init() {
	frameworks["go-restful"] = byRestful
}

func byRestful() http.Handler {
	container := restful.NewContainer()
	answer := func(request *restful.Request, response *restful.Response) {
		say(request.Request, request.SelectedRoutePath())
		response.WriteHeader(http.StatusOK)
	}
	items := new(restful.WebService)
	items.Path("/api/v1/items")
	items.Route(items.GET("/").To(answer))
	items.Route(items.GET("/{id}").To(answer))
	items.Route(items.PUT("/{id}/parts/{part}").To(answer))
	files := new(restful.WebService)
	files.Path("/files")
	files.Route(files.GET("/{path:*}").To(answer))
	container.Add(items).Add(files)
	return container
}
