//! More restarts than [`crate::agent::never_harm`] has in every run: over 500 of each method.

#[test]
fn five_hundred_versions_over_each_other() {
    crate::agent::never_harm::long();
}
