//! Which role may call which method.

use std::fmt;

/// What a caller may be; one caller may be both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes work.
    Worker,
    /// Submits jobs and looks at them.
    Client,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Worker, Self::Client];

    /// As written in token files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Client => "client",
        }
    }

    /// As written in certificates, among the subject's alternative names.
    pub fn uri(self) -> &'static str {
        match self {
            Self::Worker => "clientele:worker",
            Self::Client => "clientele:client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The roles of one caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Roles {
    worker: bool,
    client: bool,
}

impl Roles {
    pub(super) const EVERY: Self = Self {
        worker: true,
        client: true,
    };

    pub(super) fn add(&mut self, role: Role) {
        match role {
            Role::Worker => self.worker = true,
            Role::Client => self.client = true,
        }
    }

    /// Those of either.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            worker: self.worker || other.worker,
            client: self.client || other.client,
        }
    }

    pub(super) fn has(self, role: Role) -> bool {
        match role {
            Role::Worker => self.worker,
            Role::Client => self.client,
        }
    }
}

/// `worker`, `client`, `worker and client` or `nobody`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|role| self.has(*role))
            .map(Role::name)
            .collect();
        match names.as_slice() {
            [] => f.write_str("nobody"),
            names => f.write_str(&names.join(" and ")),
        }
    }
}

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Whoever can connect.
    Anyone,
    /// Callers of this role.
    Only(Role),
}

/// Every method there is, by its path. A method that is not here is denied to all.
pub const RULES: [(&str, Rule); 10] = [
    ("/clientele.v1.WorkService/Attend", Rule::Only(Role::Worker)),
    ("/clientele.v1.JobsService/Submit", Rule::Only(Role::Client)),
    ("/clientele.v1.JobsService/GetJob", Rule::Only(Role::Client)),
    (
        "/clientele.v1.JobsService/ListJobs",
        Rule::Only(Role::Client),
    ),
    (
        "/clientele.v1.JobsService/WatchJob",
        Rule::Only(Role::Client),
    ),
    (
        "/clientele.v1.JobsService/CancelJob",
        Rule::Only(Role::Client),
    ),
    // What keeps a coordinator running (systemd, Kubernetes) has no certificate, and learns only that it is alive.
    ("/grpc.health.v1.Health/Check", Rule::Anyone),
    ("/grpc.health.v1.Health/Watch", Rule::Anyone),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Rule::Only(Role::Client),
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Rule::Only(Role::Client),
    ),
];

/// The rule of a method, by its path; none means that nobody may call it.
pub fn rule_for(path: &str) -> Option<Rule> {
    RULES
        .iter()
        .find(|(known, _)| *known == path)
        .map(|(_, rule)| *rule)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::{FileDescriptorSet, MethodDescriptorProto};

    use super::*;

    #[test]
    fn the_table_and_the_services_name_the_same_methods() {
        assert_eq!(differences(&everything_served()), Vec::<String>::new());
    }

    #[test]
    fn a_method_that_someone_adds_without_a_rule_is_denied_and_missed() {
        let mut served = everything_served();
        let jobs = served
            .iter_mut()
            .flat_map(|set| &mut set.file)
            .flat_map(|file| &mut file.service)
            .find(|service| service.name() == "JobsService")
            .expect("served");
        jobs.method.push(MethodDescriptorProto {
            name: Some("ReadCustomers".into()),
            ..Default::default()
        });
        let planted = "/clientele.v1.JobsService/ReadCustomers";
        assert_eq!(rule_for(planted), None);
        assert_eq!(
            differences(&served),
            [format!("{planted} is served and has no rule")]
        );
    }

    #[test]
    fn a_rule_for_a_method_that_is_gone_is_missed() {
        let mut served = everything_served();
        served
            .iter_mut()
            .flat_map(|set| &mut set.file)
            .flat_map(|file| &mut file.service)
            .for_each(|service| service.method.retain(|method| method.name() != "CancelJob"));
        assert_eq!(
            differences(&served),
            ["/clientele.v1.JobsService/CancelJob has a rule and is not served"]
        );
    }

    #[test]
    fn paths_are_compared_to_the_letter() {
        for path in [
            "",
            "/",
            "/clientele.v1.JobsService",
            "/clientele.v1.JobsService/submit",
            "/clientele.v1.JobsService/Submit/",
            "//clientele.v1.JobsService/Submit",
            "clientele.v1.JobsService/Submit",
            "/clientele.v1.JobsService/%53ubmit",
        ] {
            assert_eq!(rule_for(path), None, "{path}");
        }
    }

    fn everything_served() -> Vec<FileDescriptorSet> {
        [
            crate::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ]
        .iter()
        .map(|bytes| FileDescriptorSet::decode(*bytes).expect("descriptors"))
        .collect()
    }

    /// Methods without a rule, then rules without a method.
    fn differences(served: &[FileDescriptorSet]) -> Vec<String> {
        let served: BTreeSet<String> = served
            .iter()
            .flat_map(|set| &set.file)
            .flat_map(|file| file.service.iter().map(move |service| (file, service)))
            .flat_map(|(file, service)| {
                service
                    .method
                    .iter()
                    .map(move |m| format!("/{}.{}/{}", file.package(), service.name(), m.name()))
            })
            .collect();
        let ruled: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(ruled.len(), RULES.len(), "a method has two rules");
        let missing = served
            .difference(&ruled)
            .map(|path| format!("{path} is served and has no rule"));
        let gone = ruled
            .difference(&served)
            .map(|path| format!("{path} has a rule and is not served"));
        missing.chain(gone).collect()
    }
}
