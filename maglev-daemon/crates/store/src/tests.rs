//! Tests of the files on the disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use maglev_model::{Backend, Delta, Limits, Name, OuterSources, Override, Pool, Rules, Services, Weight};
use maglev_testing::TempDir;
use maglev_testing::matrix::{Row, is_full};

use super::*;

fn rules() -> Rules {
    let outer =
        OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: Some("2001:db8:64::/64".parse().unwrap()) };
    Rules { limits: Limits::default(), outer }
}

#[test]
fn a_missing_services_file_is_a_first_start_and_a_missing_node_file_an_error() {
    let directory = TempDir::new();
    assert_eq!(load_services(&directory.path().join("services.yaml"), &rules()), Ok(Services::default()));
    assert!(
        load_node(&directory.path().join("maglev.yaml")).unwrap_err().to_string().ends_with("there is no such file")
    );
    assert!(load_services(directory.path(), &rules()).unwrap_err().to_string().ends_with("not a file"));
    let refused = reload_services(&directory.path().join("services.yaml"), &rules(), &Services::default())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("there is no such file") && refused.contains("vips: []"), "{refused}");
}

#[test]
fn the_examples_are_what_they_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/examples");
    let node = load_node(&examples.join("maglev.yaml")).unwrap();
    assert!(!load_services(&examples.join("services.yaml"), &node.rules()).unwrap().vips.is_empty());
    let broken = load(&examples.join("broken.yaml")).unwrap_err();
    let (node, services): (Vec<_>, Vec<_>) = broken.iter().partition(|problem| problem.file.ends_with("broken.yaml"));
    assert!(node.len() >= 6 && services.len() >= 3, "{broken}");
    assert!(broken.iter().all(|problem| problem.line.is_some() && !problem.field.is_empty()), "{broken}");
}

#[test]
fn saving_replaces_the_file_and_keeps_its_mode() {
    let directory = TempDir::new();
    let path = directory.path().join("services.yaml");
    let mut services = Services::default();
    save(&path, &services).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    let name = Name::parse("web").unwrap();
    services.pools.insert(name.clone(), Pool::new(name).into());
    save(&path, &services).unwrap();
    assert_eq!(load_services(&path, &rules()).unwrap(), services);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left beside it and its history");
}

/// Saves services as one change.
fn save(path: &Path, services: &Services) -> Result<u64, String> {
    let (mut store, _) = FileStore::open(path, &rules()).unwrap();
    let revisions = vec![(Author::default(), Delta::between(store.services(), services))];
    let expected = store.revision();
    let commit = Commit { expected, services: Arc::new(services.clone()), revisions, edited: None };
    store.commit(commit, 0).map_err(|why| why.to_string())
}

#[test]
fn a_disk_that_refuses_is_named() {
    let directory = TempDir::new();
    let path = directory.path().join("absent/services.yaml");
    let line = save(&path, &Services::default()).unwrap_err();
    assert!(line.starts_with("cannot write ") && line.contains("absent"), "{line}");
}

#[test]
fn a_secret_is_readable_by_its_owner_alone() {
    let directory = TempDir::new();
    let path = directory.path().join("secret");
    let missing = file::read_secret(&path).unwrap_err();
    assert!(missing.starts_with("cannot read ") && missing.contains("No such file"), "{missing}");
    let with_mode = |mode| {
        std::fs::write(&path, "s3cret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        file::read_secret(&path)
    };
    let open = with_mode(0o644).unwrap_err();
    assert!(open.contains("others may read it (mode 644); allowed: 600 or 640") && !open.contains("s3"), "{open}");
    assert_eq!([0o600, 0o640].map(with_mode), [Ok("s3cret".to_owned()), Ok("s3cret".to_owned())]);
}

mod faults {
    use super::*;

    /// 32,767 backends, each with a path of a kilobyte.
    fn large() -> Services {
        let name = |n: u32| Name::parse(&format!("b{n}")).unwrap();
        let pool = Name::parse("web").unwrap();
        let mut web = Pool::new(pool.clone());
        for n in 1..=32_767_u32 {
            let address = (0x0a00_0000 + n).to_be_bytes().into();
            let backend = Backend {
                name: name(n),
                address,
                weight: Weight::DEFAULT,
                state: maglev_model::AdminState::Active,
                mtu: None,
            };
            web.backends.insert(name(n), backend);
            web.health.overrides.insert(name(n), Override { path: Some(format!("/{n:01023}")), ..Override::default() });
        }
        let mut services = Services::default();
        services.pools.insert(pool, web.into());
        services
    }

    #[test]
    fn a_file_too_large_to_read_is_not_written() {
        let mut row = Row::fault("C1", "a file that would be too large to be read is refused, and the old one stays");
        if !is_full() {
            return row.says("at full size only");
        }
        let directory = TempDir::new();
        let path = directory.path().join("services.yaml");
        save(&path, &Services::default()).unwrap();
        let refused = save(&path, &large()).unwrap_err();
        assert!(
            refused.contains("allowed: at most 16777216 (16 MiB)") && refused.contains("shorten paths"),
            "{refused}"
        );
        assert_eq!(load_services(&path, &rules()).unwrap(), Services::default());
        row.says(refused.split_once(" would have ").unwrap().1.split_once(';').unwrap().0);
    }
}

mod kept;
