//! What sends requests to Services: Ingresses, and routes of the Gateway API. Which pods stand behind one of them, if it can be told
//! at all which of their requests came through it. Asks the API server; what the objects say is [`routing`]'s.

use std::sync::Arc;

use super::{
    Answer, Asked, Kind, ObjectError, Objects, Part,
    routing::{self, Hosts, Path, Reaches, Services},
    selector_of,
};

/// Another object that sends requests.
struct Sender {
    /// Its kind and name.
    what: String,
    services: Services,
}

impl Objects {
    /// Behind an Ingress, or one host's rules of it, an HTTPRoute or a GRPCRoute.
    pub(super) async fn through(&self, host: Option<&str>, asked: &Asked<'_>) -> Answer {
        let Asked { kind, namespace, name } = *asked;
        let object = self.get(kind, namespace, name).await?;
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        let mut others = self.senders(asked, |other, it| (other, it) != (kind, name)).await?;
        let services = match (kind, host) {
            (Kind::Ingress, Some(host)) => {
                routing::has_host(&object.data, host).map_err(|why| asked.unknowable(why))?;
                let services = routing::of_ingress(&object.data, &annotations, Hosts::Others(host));
                others.push(Sender { what: "another host's rule".to_owned(), services });
                routing::of_ingress(&object.data, &annotations, Hosts::Only(host))
            }
            (Kind::Ingress, None) => routing::of_ingress(&object.data, &annotations, Hosts::All),
            _ => {
                let (services, outside) = routing::of_route(&object.data, namespace);
                if let Some(why) = outside {
                    return Err(asked.unknowable(why));
                }
                services
            }
        };
        self.behind(services, &others, asked).await
    }

    /// Behind a Gateway's routes.
    pub(super) async fn through_gateway(&self, asked: &Asked<'_>) -> Answer {
        let Asked { namespace, name, .. } = *asked;
        self.get(&Kind::Gateway, namespace, name).await?;
        let mut services = Services::new();
        let mut own = Vec::new();
        for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
            for route in self.list(&kind, None, asked).await? {
                let of = route.metadata.namespace.clone().unwrap_or_default();
                let parents = routing::gateways_of(&route.data, &of);
                if !parents.contains(&(namespace, name)) {
                    continue;
                }
                let route_name = route.metadata.name.clone().unwrap_or_default();
                let what = format!("{} {of}/{route_name}", kind.names().3);
                if of != namespace {
                    return Err(asked.unknowable(format!("{what} is of another namespace")));
                }
                if let Some((_, other)) = parents.iter().find(|it| **it != (namespace, name)) {
                    return Err(asked.unknowable(format!("{what} has requests of Gateway {other} as well")));
                }
                let (sent, outside) = routing::of_route(&route.data, &of);
                if let Some(why) = outside {
                    return Err(asked.unknowable(format!("{what}: {why}")));
                }
                for (service, reaches) in sent {
                    services.entry(service).or_default().join(reaches);
                }
                own.push((kind.clone(), route_name));
            }
        }
        let is_own = |kind: &Kind, name: &str| own.iter().any(|(its, own)| its == kind && own == name);
        let others = self.senders(asked, |kind, name| !is_own(kind, name)).await?;
        self.behind(services, &others, asked).await
    }

    /// What sends requests in the namespace, of these kinds and names.
    async fn senders(
        &self,
        asked: &Asked<'_>,
        wanted: impl Fn(&Kind, &str) -> bool,
    ) -> Result<Vec<Sender>, ObjectError> {
        let mut senders = Vec::new();
        for kind in [Kind::Ingress, Kind::HttpRoute, Kind::GrpcRoute] {
            for object in self.list(&kind, Some(asked.namespace), asked).await? {
                let name = object.metadata.name.clone().unwrap_or_default();
                if !wanted(&kind, &name) {
                    continue;
                }
                let services = if kind == Kind::Ingress {
                    let annotations = object.metadata.annotations.clone().unwrap_or_default();
                    routing::of_ingress(&object.data, &annotations, Hosts::All)
                } else {
                    routing::of_route(&object.data, asked.namespace).0
                };
                senders.push(Sender { what: format!("{} {name}", kind.names().3), services });
            }
        }
        Ok(senders)
    }

    /// The pods behind these Services, if nothing else sends them requests that could be taken for those.
    async fn behind(&self, services: Services, others: &[Sender], asked: &Asked<'_>) -> Answer {
        if let Some((service, why)) = services.iter().find_map(|(name, it)| Some((name, it.unknowable()?))) {
            return Err(asked.unknowable(format!("{why}, before Service {service}")));
        }
        // Two before one Service: each request came through one of them, and which is not known.
        for (service, reaches) in &services {
            let meets = |other: &&Sender| other.services.get(service).is_some_and(|it| reaches.meets(it));
            if let Some(Sender { what, .. }) = others.iter().find(meets) {
                return Err(asked.unknowable(format!(
                    "{what} sends requests of the same paths to Service {service} (of another host, it may be: programs do not \
                     count by host)"
                )));
            }
        }
        let mut parts = Vec::new();
        for (name, reaches) in services {
            let service = match self.get(&Kind::Service, asked.namespace, &name).await {
                Ok(service) => service,
                // A rule may name a Service that is not there (yet).
                Err(ObjectError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let selector = selector_of(&Kind::Service, &service.data);
            parts.extend(selector.map(|selector| Part { selector, paths: paths_of(reaches) }));
        }
        if parts.is_empty() { Err(asked.no_selector()) } else { Ok(parts.into()) }
    }
}

/// Through which paths; none where everything comes.
fn paths_of(reaches: Reaches) -> Option<Arc<[Path]>> {
    (!reaches.paths.iter().any(Path::is_all)).then(|| reaches.paths.into())
}
