//! OpenAPI v2 and v3, as little as tools ask for: which paths there are. Without them kube-apiserver logs an error for each
//! APIService every minute or two. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value as Json, json};

use super::answer::CUSTOM;

/// Where documents are asked for.
const V2: &str = "/openapi/v2";
const V3: &str = "/openapi/v3";

/// The document at a path, of these groups and versions: those whose APIServices name this server, since the aggregation layer
/// puts all that it is told beside the documents of others.
pub(crate) fn document(path: &str, served: &[(&str, &str)]) -> Option<Json> {
    let info = json!({"title": "gopulse metrics-api", "version": env!("CARGO_PKG_VERSION")});
    let v3 =
        |group: &str, version: &str| json!({"openapi": "3.0.0", "info": info, "paths": paths(group, version, true)});
    if path == V2 {
        let paths: Map<String, Json> =
            served.iter().flat_map(|(group, version)| paths(group, version, false)).collect();
        return Some(json!({"swagger": "2.0", "info": info, "paths": paths, "definitions": {}}));
    }
    if path == V3 {
        let paths: Map<String, Json> = served
            .iter()
            .map(|(group, version)| {
                // Clients keep what they have read for as long as the hash is the same.
                let mut hasher = DefaultHasher::new();
                v3(group, version).to_string().hash(&mut hasher);
                let url = format!("{V3}/apis/{group}/{version}?hash={:016X}", hasher.finish());
                (format!("apis/{group}/{version}"), json!({"serverRelativeURL": url}))
            })
            .collect();
        return Some(json!({"paths": paths}));
    }
    let (group, version) = path.strip_prefix(V3)?.strip_prefix("/apis/")?.split_once('/')?;
    served.contains(&(group, version)).then(|| v3(group, version))
}

/// What is served of a group's version. Kinds of objects and metrics are parameters, as in what custom-metrics-apiserver serves.
fn paths(group: &str, version: &str, v3: bool) -> Map<String, Json> {
    let base = format!("/apis/{group}/{version}");
    let get = |id: &str, what: &str, parameters: &[&str]| {
        let parameter = |name: &&str| {
            let string = json!({"type": "string"});
            if v3 {
                json!({"name": name, "in": "path", "required": true, "schema": string})
            } else {
                json!({"name": name, "in": "path", "required": true, "type": "string"})
            }
        };
        let parameters: Vec<Json> = parameters.iter().map(parameter).collect();
        json!({"parameters": parameters, "get": {
            "operationId": format!("{id}_{}_{version}", group.replace('.', "_")),
            "description": what,
            "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        }})
    };
    let (values, parameters): (&str, &[&str]) = if group == CUSTOM {
        ("/namespaces/{namespace}/{resource}/{name}/{subresource}", &["namespace", "resource", "name", "subresource"])
    } else {
        ("/namespaces/{namespace}/{resource}", &["namespace", "resource"])
    };
    [
        (format!("{base}/"), get("getAPIResources", "get available resources", &[])),
        (format!("{base}{values}"), get("getValues", "get a metric's values", parameters)),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: [(&str, &str); 2] = [("custom.metrics.k8s.io", "v1beta2"), ("external.metrics.k8s.io", "v1beta1")];

    #[test]
    fn the_aggregation_layer_finds_each_version_that_is_served_and_no_other() {
        let v2 = document("/openapi/v2", &SERVED).unwrap();
        assert_eq!(v2["swagger"], "2.0");
        let paths: Vec<_> = v2["paths"].as_object().unwrap().keys().collect();
        assert_eq!(paths.len(), 4);
        // The aggregation layer takes those below /apis/GROUP/VERSION/ alone.
        assert!(
            paths.iter().all(|it| SERVED.iter().any(|(g, v)| it.starts_with(&format!("/apis/{g}/{v}/")))),
            "{paths:?}"
        );
        let root = document("/openapi/v3", &SERVED).unwrap();
        for (group, version) in SERVED {
            let url = root["paths"][format!("apis/{group}/{version}")]["serverRelativeURL"].as_str().unwrap();
            let document = document(url.split('?').next().unwrap(), &SERVED).unwrap();
            assert_eq!(
                (document["openapi"].as_str(), document["paths"].as_object().unwrap().len()),
                (Some("3.0.0"), 2)
            );
        }
        assert_eq!(root["paths"].as_object().unwrap().len(), 2);
        for other in ["/openapi", "/openapi/v3/apis/custom.metrics.k8s.io/v1beta1", "/openapi/v3/apis/apps/v1"] {
            assert_eq!(document(other, &SERVED), None, "{other}");
        }
    }
}
