//! Decisions of the picker, as tables of cases.

use std::collections::HashMap;

use super::*;
use crate::types::SeqNo;

const LIMITS: Limits = Limits {
    level0_tables: 2,
    level1_bytes: 400,
    table_bytes: 100,
    expiry_grace: 100,
};

/// A table and its edges; None for the key of a destroyed tenant.
#[derive(Clone)]
struct T {
    level: usize,
    shape: TableShape,
    first: Option<&'static str>,
    last: Option<&'static str>,
}

/// A full table in `level`, from (tenant, key) to (tenant, key).
fn t(level: usize, number: u64, from: (u64, &'static str), to: (u64, &'static str)) -> T {
    let shape = TableShape {
        number,
        bytes: 100,
        tenant_min: TenantId(from.0),
        tenant_max: TenantId(to.0),
        entries: 10,
        seqno_max: SeqNo(5),
        ..TableShape::default()
    };
    T {
        level,
        shape,
        first: Some(from.1),
        last: Some(to.1),
    }
}

impl T {
    fn with(mut self, change: impl FnOnce(&mut TableShape)) -> T {
        change(&mut self.shape);
        self
    }

    fn bytes(self, bytes: u64) -> T {
        self.with(|shape| shape.bytes = bytes)
    }

    fn dead(self, bytes: u64) -> T {
        self.with(|shape| shape.dead_bytes = bytes)
    }

    fn deletes(self, deletes: u64) -> T {
        self.with(|shape| shape.deletes = deletes)
    }

    fn range_deletes(self, range_deletes: u64) -> T {
        self.with(|shape| shape.range_deletes = range_deletes)
    }

    /// Its first value expires then; the clock stands at 1000, and the grace is 100.
    fn expires(self, at: u64) -> T {
        self.with(|shape| shape.expires = Some(at))
    }

    fn dropped(self) -> T {
        self.with(|shape| shape.dropped = true)
    }

    fn all_dead(self) -> T {
        let bytes = self.shape.bytes;
        self.dead(bytes).with(|shape| shape.all_dead = true).sealed()
    }

    /// Its tenants' keys are destroyed: no edges.
    fn sealed(mut self) -> T {
        (self.first, self.last) = (None, None);
        self
    }
}

struct Known(HashMap<u64, (Option<&'static str>, Option<&'static str>)>);

impl Edges for Known {
    fn first(&self, number: u64) -> Result<Option<Bytes>> {
        Ok(self.0[&number].0.map(Bytes::from))
    }

    fn end(&self, number: u64) -> Result<Option<Bytes>> {
        // Right behind the last key.
        Ok(self.0[&number].1.map(|last| Bytes::from(format!("{last}\0"))))
    }
}

fn world(tables: &[T]) -> (Shape, Known) {
    let mut shape = Shape {
        oldest_snapshot: SeqNo(10),
        now: 1000,
        ..Shape::default()
    };
    for table in tables {
        shape.levels[table.level].push(table.shape.clone());
    }
    (
        shape,
        Known(
            tables
                .iter()
                .map(|table| (table.shape.number, (table.first, table.last)))
                .collect(),
        ),
    )
}

fn show(plan: Option<Plan>) -> String {
    let Some(Plan {
        action,
        inputs,
        output,
        reason,
        ..
    }) = plan
    else {
        return "none".into();
    };
    let inputs: Vec<String> = inputs
        .iter()
        .map(|(level, number)| format!("{level}:{number}"))
        .collect();
    format!("{action:?} {} to {output}, {reason:?}", inputs.join(" "))
}

fn picked(tables: &[T]) -> String {
    let (shape, edges) = world(tables);
    show(pick(&shape, &edges, &LIMITS).unwrap())
}

#[test]
fn level_0_goes_down_when_ranges_paid_for_all_that_is_written_and_it_is_not_too_little() {
    let of_one = |bytes, below| {
        [
            t(0, 9, (1, "a"), (1, "f")).bytes(bytes),
            t(1, 1, (1, "a"), (1, "f")).bytes(below),
            t(1, 2, (1, "x"), (1, "z")).bytes(90),
        ]
    };
    let picked = |tables: &[T], paid| {
        let (mut shape, edges) = world(tables);
        shape.ranges_paid = paid;
        show(pick(&shape, &edges, &LIMITS).unwrap())
    };
    let merged = "Merge 0:9 1:1 to 1, Ranges";
    assert_eq!(picked(&of_one(20, 100), 119), "none");
    assert_eq!(picked(&of_one(20, 100), 120), merged);
    assert_eq!(picked(&of_one(10, 100), 110), merged);
    assert_eq!(picked(&of_one(9, 100), u64::MAX), "none", "a tenth at least");
    let apart = [
        t(0, 9, (1, "m"), (1, "n")),
        t(1, 1, (1, "a"), (1, "f")).bytes(5000),
    ];
    assert_eq!(picked(&apart, 99), "Move 1:1 to 2, Size");
    let apart = [t(0, 9, (1, "m"), (1, "n")), t(1, 1, (1, "a"), (1, "f"))];
    assert_eq!(picked(&apart, 99), "none");
    assert_eq!(picked(&apart, 100), "Move 0:9 to 1, Ranges");
    assert_eq!(picked(&[t(1, 1, (1, "a"), (1, "f"))], u64::MAX), "none");
}

#[test]
fn each_shape_gets_its_plan() {
    let a = |level, number| t(level, number, (1, "a"), (1, "f"));
    let m = |level, number| t(level, number, (1, "m"), (1, "r"));
    let z = |level, number| t(level, number, (1, "x"), (1, "z"));
    let full = [
        a(1, 11),
        m(1, 12),
        z(1, 13),
        t(1, 14, (2, "a"), (2, "b")),
        t(1, 15, (3, "a"), (3, "b")),
    ];
    let over = |more: &[T]| full.iter().chain(more).cloned().collect::<Vec<T>>();
    let cases: Vec<(&str, Vec<T>, &str)> = vec![
        ("nothing", vec![], "none"),
        ("level 0 below its trigger", vec![a(0, 9), a(1, 1)], "none"),
        (
            "level 0 goes down whole, with what overlaps its stretch",
            vec![a(0, 9), t(0, 8, (1, "n"), (1, "n")), a(1, 1), m(1, 2), z(1, 3)],
            "Merge 0:9 0:8 1:1 1:2 to 1, Level0",
        ),
        (
            "tables between two of level 0 are inside the stretch",
            vec![a(0, 9).bytes(20), z(0, 8), m(1, 2)],
            "Merge 0:9 0:8 1:2 to 1, Level0",
        ),
        (
            "disjoint level 0 moves",
            vec![a(0, 9), z(0, 8), t(1, 1, (2, "a"), (2, "b"))],
            "Move 0:9 0:8 to 1, Level0",
        ),
        (
            "two of level 0 that touch do not move",
            vec![a(0, 9), t(0, 8, (1, "f"), (1, "g"))],
            "Merge 0:9 0:8 to 1, Level0",
        ),
        (
            "small ones of level 0 do not move",
            vec![a(0, 9).bytes(24), z(0, 8)],
            "Merge 0:9 0:8 to 1, Level0",
        ),
        (
            "small neighbours are taken along",
            vec![
                m(0, 9),
                m(0, 8),
                t(1, 1, (1, "a"), (1, "b")).bytes(30),
                a(1, 2).bytes(49),
                z(1, 3).bytes(50),
            ],
            "Merge 0:9 0:8 1:1 1:2 to 1, Level0",
        ),
        (
            "but not larger than the rest",
            vec![
                m(0, 9).bytes(10),
                m(0, 8).bytes(10),
                t(1, 1, (1, "a"), (1, "b")).bytes(45),
                a(1, 2).bytes(22),
                z(1, 3).bytes(20),
            ],
            "Merge 0:9 0:8 1:3 to 1, Level0",
        ),
        ("a level at its size stays", full[..4].to_vec(), "none"),
        (
            "a level over its size moves its oldest where nothing is below",
            over(&[]),
            "Move 1:11 to 2, Size",
        ),
        (
            "or merges the one that overlaps least",
            over(&[
                a(2, 1),
                m(2, 2).bytes(60),
                z(2, 3),
                t(2, 4, (2, "a"), (2, "a")).bytes(70),
                t(2, 5, (3, "a"), (3, "a")).bytes(80),
            ]),
            "Merge 1:12 2:2 to 2, Size",
        ),
        (
            "same tenant, keys apart: no overlap",
            over(&[t(2, 1, (1, "b"), (1, "l")), t(2, 2, (1, "s"), (1, "w"))]),
            "Move 1:12 to 2, Size",
        ),
        (
            "the level most over its size goes first",
            vec![a(0, 9), a(0, 8), a(1, 1).bytes(401)],
            "Merge 0:9 0:8 1:1 to 1, Level0",
        ),
        (
            "also when that is a deep one",
            vec![a(0, 9), a(0, 8), a(2, 1).bytes(9000)],
            "Move 2:1 to 3, Size",
        ),
        (
            "the last level has no size",
            vec![a(6, 1).bytes(u64::MAX / 1000)],
            "none",
        ),
        (
            "tables of destroyed tenants only are erased at once",
            vec![a(0, 9).all_dead(), z(0, 8), m(0, 7), a(0, 6), a(3, 1).all_dead()],
            "Erase 0:9 3:1 to 6, Destroyed",
        ),
        (
            "a little of a destroyed tenant can wait",
            vec![a(2, 1).dead(6)],
            "none",
        ),
        (
            "more cannot",
            vec![a(2, 1).dead(6), m(2, 2).dead(7)],
            "Merge 2:2 to 2, Destroyed",
        ),
        (
            "the worst goes first",
            vec![a(2, 1).dead(60), m(3, 2).dead(70)],
            "Merge 3:2 to 3, Destroyed",
        ),
        (
            "in level 0 it goes down",
            vec![a(0, 9).dead(60), m(1, 2)],
            "Merge 0:9 to 1, Destroyed",
        ),
        (
            "unless writers are about to wait",
            vec![a(0, 9), a(0, 8), a(0, 7), a(0, 6), m(2, 2).dead(70)],
            "Merge 0:9 0:8 0:7 0:6 to 1, Level0",
        ),
        (
            "dropped keyspaces are written out",
            vec![a(2, 1).dropped()],
            "Merge 2:1 to 2, Dropped",
        ),
        (
            "droppable data does not move",
            over(&[]).into_iter().map(|table| table.dead(1)).collect(),
            "Merge 1:11 to 2, Size",
        ),
        (
            "deletes do not move to where they are the last",
            over(&[]).into_iter().map(|table| table.deletes(1)).collect(),
            "Merge 1:11 to 2, Size",
        ),
        (
            "but further down to what they hide",
            over(&[a(4, 1)])
                .into_iter()
                .map(|table| table.deletes(1))
                .collect(),
            "Move 1:11 to 2, Size",
        ),
        (
            "mostly deletes, something below",
            vec![a(2, 1).deletes(5), a(3, 2)],
            "Merge 2:1 3:2 to 3, Deletes",
        ),
        (
            "mostly deletes, something further below",
            vec![a(2, 1).deletes(5), a(5, 2)],
            "Move 2:1 to 3, Deletes",
        ),
        (
            "mostly deletes, nothing below",
            vec![a(2, 1).deletes(5), m(5, 2)],
            "Merge 2:1 to 2, Deletes",
        ),
        ("fewer deletes", vec![a(2, 1).deletes(4)], "none"),
        (
            "a range delete, something below",
            vec![a(2, 1).range_deletes(1), a(3, 2)],
            "Merge 2:1 3:2 to 3, Deletes",
        ),
        (
            "a range delete, nothing below",
            vec![a(2, 1).range_deletes(1), m(5, 2)],
            "Merge 2:1 to 2, Deletes",
        ),
        (
            "a range delete that a snapshot does not see",
            vec![a(2, 1).range_deletes(1).with(|shape| shape.seqno_max = SeqNo(11))],
            "none",
        ),
        (
            "range deletes do not move to where they are the last",
            over(&[])
                .into_iter()
                .map(|table| table.range_deletes(1))
                .collect(),
            "Merge 1:11 to 2, Size",
        ),
        (
            "deletes that a snapshot does not see",
            vec![a(2, 1).deletes(9).with(|shape| shape.seqno_max = SeqNo(11))],
            "none",
        ),
        ("values that expired can wait", vec![a(2, 1).expires(901)], "none"),
        (
            "until the grace is over",
            vec![a(2, 1).expires(900)],
            "Merge 2:1 to 2, Expired",
        ),
        (
            "the oldest first, wherever it is",
            vec![a(2, 1).expires(800), m(3, 2).expires(799), z(4, 3).expires(801)],
            "Merge 3:2 to 3, Expired",
        ),
        (
            "from level 0 they go down",
            vec![a(0, 9).expires(700), m(1, 2)],
            "Merge 0:9 to 1, Expired",
        ),
        (
            "before the work that never ends",
            over(&[a(2, 1).expires(900)]),
            "Merge 2:1 to 2, Expired",
        ),
        (
            "and after what writers wait for",
            vec![a(0, 9), a(0, 8), a(0, 7), a(0, 6), m(2, 2).expires(9)],
            "Merge 0:9 0:8 0:7 0:6 to 1, Level0",
        ),
        (
            "expired values do not move",
            over(&[]).into_iter().map(|table| table.expires(1000)).collect(),
            "Merge 1:11 to 2, Size",
        ),
        (
            "values that will expire do",
            over(&[]).into_iter().map(|table| table.expires(1001)).collect(),
            "Move 1:11 to 2, Size",
        ),
        (
            "a destroyed tenant at the edge covers all of the tenant",
            vec![
                t(0, 9, (1, "a"), (2, "c")).sealed(),
                a(0, 8),
                t(1, 1, (2, "d"), (2, "f")).sealed(),
                t(1, 2, (3, "a"), (3, "b")),
            ],
            "Merge 0:9 0:8 1:1 to 1, Level0",
        ),
    ];
    for (name, tables, expected) in cases {
        assert_eq!(picked(&tables), expected, "{name}");
    }
}

#[test]
fn everything_ends_in_one_level_written_anew() {
    let a = |level, number| t(level, number, (1, "a"), (1, "f"));
    let m = |level, number| t(level, number, (1, "m"), (1, "r"));
    for (name, tables, before, expected) in [
        ("nothing", vec![], 100, "none"),
        (
            "level 0 first",
            vec![a(0, 9), m(0, 8), a(1, 1)],
            100,
            "Merge 0:9 0:8 1:1 to 1, Asked",
        ),
        ("newer flushes can stay", vec![a(0, 9), a(1, 101)], 9, "none"),
        (
            "then level by level",
            vec![a(1, 9), m(1, 8), a(3, 1)],
            100,
            "Move 1:9 1:8 to 2, Asked",
        ),
        (
            "into what is below",
            vec![a(2, 9), m(2, 8), a(3, 1), t(3, 2, (9, "a"), (9, "b"))],
            100,
            "Merge 2:9 2:8 3:1 to 3, Asked",
        ),
        (
            "the last is written anew",
            vec![a(3, 9), m(3, 8)],
            9,
            "Merge 3:8 to 3, Asked",
        ),
        ("once", vec![a(3, 9), m(3, 8)], 8, "none"),
        (
            "destroyed tenants go first",
            vec![a(3, 9).all_dead(), m(0, 8)],
            100,
            "Erase 3:9 to 6, Destroyed",
        ),
    ] {
        let (shape, edges) = world(&tables);
        assert_eq!(
            show(pick_everything(&shape, &edges, &LIMITS, before).unwrap()),
            expected,
            "{name}"
        );
    }
    // Plans stay bearable: 25 tables' worth.
    let many: Vec<T> = (0..60)
        .map(|n| t(2, n, (n, "a"), (n, "b")))
        .chain([t(3, 99, (99, "a"), (99, "b"))])
        .collect();
    let (shape, edges) = world(&many);
    let plan = pick_everything(&shape, &edges, &LIMITS, 100).unwrap().unwrap();
    assert_eq!((plan.action, plan.inputs.len()), (Action::Move, 25));
    let (shape, edges) = world(&many[..60]);
    let plan = pick_everything(&shape, &edges, &LIMITS, 100).unwrap().unwrap();
    assert_eq!((plan.action, plan.inputs.len()), (Action::Merge, 25));
}

#[test]
fn edges_are_asked_for_only_where_tables_meet_in_a_tenant() {
    struct Asked<'a>(&'a Known, std::cell::RefCell<Vec<u64>>);
    impl Edges for Asked<'_> {
        fn first(&self, number: u64) -> Result<Option<Bytes>> {
            self.1.borrow_mut().push(number);
            self.0.first(number)
        }
        fn end(&self, number: u64) -> Result<Option<Bytes>> {
            self.1.borrow_mut().push(number);
            self.0.end(number)
        }
    }
    // Tenants 0, 10, 20, …: a thousand tables below, and one above that meets none of them.
    let mut tables: Vec<T> = (0..1000).map(|n| t(2, n, (n * 10, "a"), (n * 10, "b"))).collect();
    tables.push(t(1, 5000, (5, "a"), (55, "b")).bytes(30_000));
    let (shape, known) = world(&tables);
    let asked = Asked(&known, Default::default());
    let plan = pick(
        &shape,
        &asked,
        &Limits {
            level1_bytes: 20_000,
            ..LIMITS
        },
    )
    .unwrap();
    assert_eq!(show(plan), "Merge 1:5000 2:1 2:2 2:3 2:4 2:5 to 2, Size");
    assert!(
        asked.1.borrow().iter().all(|number| *number == 5000),
        "{:?}",
        asked.1
    );
}
