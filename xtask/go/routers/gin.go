package main

import (
	"net/http"

	"github.com/gin-gonic/gin"
)

func init() {
	routers["gin"] = byGin
}

func byGin(prefix string) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.Use(func(c *gin.Context) {
		c.Next()
		say(c.Request, c.FullPath())
	}, gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, _ interface{}) { c.AbortWithStatus(http.StatusInternalServerError) }))
	ok, failing := gin.WrapF(answer), gin.WrapF(fail)
	r := engine.Group(prefix)
	r.GET("/", ok)
	r.GET("/hello/:name", ok)
	r.GET("/users/:id/orders/:order", ok)
	r.GET("/files/*path", ok)
	r.GET("/static/about", ok)
	r.POST("/users", ok)
	r.DELETE("/users/:id", ok)
	r.GET("/numbers/:id", ok)
	r.GET("/slash/", ok)
	r.GET("/fail", failing)
	r.GET("/panic/:id", func(*gin.Context) { panic("on purpose") })
	r.Any("/any", ok)
	v1 := r.Group("/api").Group("/v1")
	v1.GET("/items", ok)
	v1.GET("/items/:id", ok)
	v1.Group("/admin").GET("/stats", ok)
	r.Group("/sub").GET("/things/:id", ok)
	r.GET("/batch/:id", func(c *gin.Context) {
		ask(engine, prefix+"/hello/inside")
		answer(c.Writer, c.Request)
	})
	r.GET("/again/:id", func(c *gin.Context) {
		c.Request.URL.Path = prefix + "/hello/again"
		engine.HandleContext(c)
	})
	return engine
}
