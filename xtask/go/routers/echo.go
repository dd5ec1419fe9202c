package main

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"
)

func init() {
	routers["echo"] = byEcho
}

func byEcho(prefix string) http.Handler {
	e := echo.New()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			err := next(c)
			// Until 4.10 it has the path there.
			if !errors.Is(err, echo.ErrNotFound) {
				say(c.Request(), c.Path())
			}
			return err
		}
	}, echo.WrapMiddleware(recovering))
	ok, failing := echo.WrapHandler(http.HandlerFunc(answer)), echo.WrapHandler(http.HandlerFunc(fail))
	r := e.Group(prefix)
	r.GET("/", ok)
	r.GET("/hello/:name", ok)
	r.GET("/users/:id/orders/:order", ok)
	r.GET("/files/*", ok)
	r.GET("/static/about", ok)
	r.POST("/users", ok)
	r.DELETE("/users/:id", ok)
	r.GET("/numbers/:id", ok)
	r.GET("/slash/", ok)
	r.GET("/fail", failing)
	r.GET("/panic/:id", func(echo.Context) error { panic("on purpose") })
	r.GET("/batch/:id", func(c echo.Context) error {
		ask(e, prefix+"/hello/inside")
		return c.String(http.StatusOK, "ok")
	})
	r.Any("/any", ok)
	v1 := r.Group("/api").Group("/v1")
	v1.GET("/items", ok)
	v1.GET("/items/:id", ok)
	v1.Group("/admin").GET("/stats", ok)
	r.Group("/sub").GET("/things/:id", ok)
	return e
}
