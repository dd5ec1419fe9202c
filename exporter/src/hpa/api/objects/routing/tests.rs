use serde_json::json;

use super::*;

fn prefix(path: &str) -> Path {
    Path { path: path.into(), exact: false }
}

fn exact(path: &str) -> Path {
    Path { path: path.into(), exact: true }
}

fn backend(name: &str) -> Value {
    json!({"service": {"name": name, "port": {"number": 80}}})
}

#[test]
fn a_path_takes_routes_below_it_and_is_in_doubt_where_a_wildcard_stands_for_its_text() {
    for (path, route, takes) in [
        (prefix("/"), "", Takes::Yes),
        (prefix("/"), "/anything", Takes::Yes),
        (prefix("/api"), "/api", Takes::Yes),
        (prefix("/api/"), "/api/items/{id}", Takes::Yes),
        (prefix("/api"), "shop.example/api/items", Takes::Yes),
        (prefix("/api"), "/apis", Takes::No),
        (prefix("/api/v1"), "/api", Takes::No),
        (prefix("/api"), "", Takes::No),
        (prefix("/acme"), "/{tenant}/orders", Takes::Perhaps),
        (prefix("/acme"), "/:tenant/orders", Takes::Perhaps),
        (prefix("/acme"), "/{path...}", Takes::Perhaps),
        (prefix("/acme"), "/*path", Takes::Perhaps),
        (prefix("/acme"), "/**", Takes::Perhaps),
        (prefix("/a/b"), "/{x}/c", Takes::No),
        (prefix("/a/b"), "/{x}/b/c", Takes::Perhaps),
        (exact("/login"), "/login", Takes::Yes),
        (exact("/login"), "/login/x", Takes::No),
        (exact("/login"), "/login/", Takes::No),
        (exact("/login"), "/{page}", Takes::Perhaps),
        (exact("/login"), "/login/{rest...}", Takes::Perhaps),
    ] {
        assert_eq!(path.takes(route), takes, "{path:?} {route}");
    }
}

#[test]
fn an_ingress_sends_by_path_and_says_where_that_cannot_be_told() {
    let ingress = json!({"spec": {
        "defaultBackend": backend("web"),
        "rules": [{"http": {"paths": [
            {"path": "/api", "pathType": "Prefix", "backend": backend("api")},
            {"path": "/login", "pathType": "Exact", "backend": backend("web")},
            {"path": "/shop(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": backend("shop")},
            {"path": "/plain", "pathType": "ImplementationSpecific", "backend": backend("plain")},
        ]}}],
    }});
    let services = of_ingress(&ingress, &BTreeMap::new(), Hosts::All);
    assert_eq!(services["api"], Reaches { paths: vec![prefix("/api")], doubt: None });
    assert_eq!(services["web"].paths.len(), 2);
    assert!(services["shop"].unknowable().unwrap().contains("pattern"));
    assert_eq!(services["plain"].unknowable(), None);
    for (annotation, value, doubted) in [
        ("nginx.ingress.kubernetes.io/rewrite-target", "/$2", true),
        ("nginx.ingress.kubernetes.io/use-regex", "true", true),
        ("nginx.ingress.kubernetes.io/use-regex", "false", false),
        ("haproxy.org/path-rewrite", "/foo/(.*) /\\1", true),
        ("konghq.com/strip-path", "true", true),
        ("traefik.ingress.kubernetes.io/router.middlewares", "shop-strip@kubernetescrd", true),
        ("nginx.org/rewrites", "serviceName=api rewrite=/", true),
        ("nginx.ingress.kubernetes.io/proxy-body-size", "8m", false),
    ] {
        let annotations = [(annotation.to_owned(), value.to_owned())].into();
        let services = of_ingress(&ingress, &annotations, Hosts::All);
        assert_eq!(services["api"].unknowable().is_some(), doubted, "{annotation}");
        assert_eq!(services["web"].unknowable(), None, "all that comes to it is meant, whatever its path");
    }
}

#[test]
fn routes_of_the_gateway_api_send_by_path() {
    let route = |rules: Value| of_route(&json!({"spec": {"rules": rules}}), "shop");
    let to = |matches: Value| route(json!([{"matches": matches, "backendRefs": [{"name": "api"}]}])).0["api"].clone();
    assert_eq!(to(json!([])).paths, [prefix("/")]);
    let paths = json!([{"path": {"type": "PathPrefix", "value": "/api"}}, {"path": {"type": "Exact", "value": "/x"}}]);
    assert_eq!(to(paths), Reaches { paths: vec![prefix("/api"), exact("/x")], doubt: None });
    assert!(to(json!([{"path": {"type": "RegularExpression", "value": "/a.*"}}])).unknowable().is_some());
    assert!(to(json!([{"path": {"value": "/a"}, "headers": [{"name": "x", "value": "y"}]}])).unknowable().is_some());
    assert!(to(json!([{"path": {"value": "/a"}, "method": "GET"}])).unknowable().is_some());
    let grpc = json!([{"method": {"service": "shop.Orders", "method": "Get"}}, {"method": {"service": "shop.Carts"}}]);
    assert_eq!(to(grpc).paths, [exact("/shop.Orders/Get"), prefix("/shop.Carts")]);
    assert!(to(json!([{"method": {"method": "Get"}}])).unknowable().is_some());

    let rewritten = json!([{"matches": [{"path": {"value": "/a"}}], "backendRefs": [{"name": "api"}],
        "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch"}}}]}]);
    assert!(route(rewritten).0["api"].unknowable().unwrap().contains("filter"));
    let split =
        json!([{"backendRefs": [{"name": "a", "weight": 9}, {"name": "b", "weight": 1}, {"name": "c", "weight": 0}]}]);
    assert_eq!(route(split).0.into_keys().collect::<Vec<_>>(), ["a", "b"]);
    for (reference, why) in [
        (json!({"name": "a", "namespace": "other"}), "namespace other"),
        (json!({"name": "a", "kind": "ServiceImport"}), "ServiceImport"),
    ] {
        let (services, outside) = route(json!([{"backendRefs": [reference, {"name": "api"}]}]));
        assert!(outside.unwrap().contains(why));
        assert_eq!(services.into_keys().collect::<Vec<_>>(), ["api"], "what else it sends there is known");
    }
}

#[test]
fn one_hosts_rules_of_an_ingress_are_told_from_the_others() {
    let rule = |host: Option<&str>, path: &str, service: &str| {
        let paths = json!([{"path": path, "pathType": "Prefix", "backend": backend(service)}]);
        let mut rule = json!({"http": {"paths": paths}});
        if let Some(host) = host {
            rule["host"] = host.into();
        }
        rule
    };
    let ingress = json!({"spec": {"defaultBackend": backend("web"), "rules": [
        rule(Some("a.example"), "/", "shop"), rule(Some("a.example"), "/api", "api"),
        rule(Some("b.example"), "/", "blog"), rule(Some("*.c.example"), "/", "blog"), rule(Some("b.example"), "/api", "api"),
    ]}});
    let names = |hosts| of_ingress(&ingress, &BTreeMap::new(), hosts).into_keys().collect::<Vec<_>>();
    assert_eq!(names(Hosts::Only("a.example")), ["api", "shop"]);
    assert_eq!(names(Hosts::Others("a.example")), ["api", "blog", "web"]);
    assert_eq!(names(Hosts::All), ["api", "blog", "shop", "web"]);
    assert_eq!(has_host(&ingress, "a.example"), Ok(()));
    let why = |host| has_host(&ingress, host).unwrap_err();
    assert!(why("x.c.example").contains("*.c.example take other hosts'"), "{}", why("x.c.example"));
    assert!(why("x.y.c.example").contains("but for *.c.example, a.example, b.example"));
    assert!(why("c.example").contains("no rules for host"));
    let any = json!({"spec": {"rules": [rule(None, "/", "shop")]}});
    assert!(has_host(&any, "a.example").unwrap_err().contains("any host"));
}

#[test]
fn paths_that_share_requests_meet_and_parents_are_found() {
    let one = |path: Path| Reaches { paths: vec![path], doubt: None };
    assert!(one(prefix("/")).meets(&one(prefix("/api"))) && one(prefix("/api")).meets(&one(exact("/api"))));
    assert!(!one(prefix("/api")).meets(&one(prefix("/web"))));
    let route = json!({"spec": {"parentRefs": [{"name": "edge"}, {"name": "other", "namespace": "infra"}]}});
    assert_eq!(gateways_of(&route, "shop"), [("shop", "edge"), ("infra", "other")]);
    // Whatever comes by a pattern may be any path's, and so may what is rewritten.
    let doubted = Reaches { doubt: Some("a pattern".into()), ..one(prefix("/else")) };
    assert!(one(prefix("/api")).meets(&doubted));
}
