use super::*;
use crate::stores::ENGINES;

fn plan() -> Plan {
    Plan {
        keys: 2000,
        value_bytes: 100,
        time: Duration::from_millis(5),
        seed: 1,
        activity: None,
    }
}

fn budget() -> Budget {
    Budget {
        cache_bytes: 8 << 20,
        write_buffer_bytes: 4 << 20,
    }
}

#[test]
fn every_group_tells_of_exactly_its_lines_on_every_engine() {
    let plan = plan();
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        for group in GROUPS {
            let round = Round::new(engine, budget(), &plan, dir.path(), None);
            let figures = round.run(group).unwrap();
            let mut told: Vec<String> = figures
                .into_iter()
                .inspect(|figure| assert!(figure.value.is_finite(), "{} {figure:?}", engine.name))
                .map(|figure| figure.line)
                .filter(|line| !line.starts_with("peak "))
                .collect();
            let mut lines = group.lines.to_vec();
            told.sort();
            lines.sort();
            assert_eq!(told, lines, "{} {}", engine.name, group.name);
        }
    }
}

#[test]
fn a_group_asked_for_one_line_tells_of_no_other_and_loads_by_itself() {
    let plan = plan();
    let dir = tempfile::tempdir().unwrap();
    let engine = &ENGINES[0];
    for (group, line) in [
        ("small cache", "cache a tenth of the data: seek + 50, 1 thread"),
        ("writes", "YCSB C (reads)"),
        ("activity", "activity: all events, tenant by tenant"),
    ] {
        let dir = dir.path().join(group);
        let round = Round::new(engine, budget(), &plan, &dir, Some(line));
        let figures = round.run(Group::find(group).unwrap()).unwrap();
        assert_eq!(
            figures.iter().map(|f| f.line.as_str()).collect::<Vec<_>>(),
            [line]
        );
    }
}

#[test]
fn no_two_lines_have_one_name() {
    let mut names: Vec<&str> = GROUPS.iter().flat_map(|group| group.lines).copied().collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}
