//! Promises of the schedule.

use super::*;

const A: WorkerId = WorkerId(0);
const B: WorkerId = WorkerId(1);

/// Part `n` of every stage has `rows[n]` rows.
fn open(schedule: &mut Schedule, seq: u64, rows: &[u64]) {
    schedule.open_stage(Stage {
        seq: StageSeq(seq),
        name: "passes",
        rows: rows.to_vec(),
        keeps_homes: true,
    });
}

fn schedule(n_parts: usize) -> Schedule {
    let mut schedule = Schedule::new(true);
    schedule.join(A, &[]);
    schedule.join(B, &[]);
    open(&mut schedule, 0, &vec![100; n_parts]);
    schedule
}

/// The right answer, after the time that an even speed gives.
fn answer(schedule: &mut Schedule, id: WorkerId, parts: &[PartId]) -> Counted {
    let elapsed = Duration::from_millis(parts.len() as u64 * 100);
    answer_with(schedule, id, parts, 0, elapsed)
}

fn answer_with(
    schedule: &mut Schedule,
    id: WorkerId,
    parts: &[PartId],
    content: u8,
    elapsed: Duration,
) -> Counted {
    let digest = blake3::hash(&[content]);
    let counted = schedule.answer(id, parts, count(parts), digest, elapsed);
    counted.unwrap()
}

fn grant(schedule: &mut Schedule) -> Vec<(WorkerId, Vec<PartId>)> {
    schedule.grant(Duration::ZERO)
}

fn count(parts: &[PartId]) -> Answer {
    Answer::Weigh(vec![parts.len() as u64])
}

/// Grants and answers until the stage is done; what the answers add up to.
fn run_out(schedule: &mut Schedule) -> u64 {
    for _ in 0..100 {
        let held = schedule.workers.iter().filter_map(|(id, worker)| {
            let lease = worker.lease.as_ref()?;
            Some((*id, lease.parts.clone()))
        });
        let held: Vec<_> = held.collect();
        for (id, parts) in held.into_iter().chain(grant(schedule)) {
            answer(schedule, id, &parts);
        }
        if let Some(Answer::Weigh(total)) = schedule.finish() {
            return total[0];
        }
    }
    panic!("the stage never ends");
}

#[test]
fn every_part_counts_once() {
    assert_eq!(run_out(&mut schedule(17)), 17);
}

#[test]
fn parts_go_home_in_the_next_stage() {
    let mut schedule = schedule(8);
    run_out(&mut schedule);
    let homes = schedule.homes.clone();
    open(&mut schedule, 1, &[100; 8]);
    for (id, parts) in grant(&mut schedule) {
        assert!(parts.iter().all(|part| homes[part] == id));
    }
}

#[test]
fn a_lost_worker_loses_only_what_it_had_not_answered() {
    let mut schedule = schedule(8);
    let grants = grant(&mut schedule);
    let lost = grants[0].1.clone();
    schedule.lose(A).unwrap();
    answer(&mut schedule, B, &grants[1].1);
    assert!(lost.iter().all(|part| schedule.open.contains(part)));
    assert_eq!(run_out(&mut schedule), 8);
}

#[test]
fn a_worker_that_leaves_is_not_to_blame() {
    let mut schedule = schedule(1);
    for n in 2..2 + 2 * MAX_DEATHS {
        let grants = grant(&mut schedule);
        schedule.leave(grants[0].0);
        schedule.join(WorkerId(n), &[]);
    }
    assert!(schedule.deaths.is_empty());
    assert_eq!(run_out(&mut schedule), 1);
}

#[test]
fn a_late_answer_of_a_lost_worker_counts_once_or_not_at_all() {
    let mut schedule = schedule(8);
    let grants = grant(&mut schedule);
    let late = grants[0].1.clone();
    schedule.lose(A).unwrap();
    assert_eq!(answer(&mut schedule, A, &late), Counted::New);
    assert_eq!(answer(&mut schedule, A, &late), Counted::Repeated);
    answer(&mut schedule, B, &grants[1].1);
    assert_eq!(run_out(&mut schedule), 8);
}

#[test]
fn an_answer_that_merges_counted_parts_is_refused_and_its_rest_comes_singly() {
    let mut schedule = schedule(4);
    let mine = grant(&mut schedule)[0].1.clone();
    let mut more = mine.clone();
    more.push(PartId(3));
    answer(&mut schedule, A, &mine);
    assert_eq!(answer(&mut schedule, A, &more), Counted::Repeated);
    assert!(schedule.alone.contains(&PartId(3)));
    schedule.lose(B).unwrap();
    assert_eq!(run_out(&mut schedule), 4);
}

#[test]
fn an_answer_that_differs_from_the_counted_one_is_noticed_also_when_it_is_late() {
    let mut schedule = schedule(4);
    let mine = grant(&mut schedule)[0].1.clone();
    answer(&mut schedule, A, &mine);
    let wrong = answer_with(&mut schedule, B, &mine, 1, Duration::ZERO);
    assert_eq!(wrong, Counted::Differs);
    for seq in 1..=REMEMBERED_STAGES {
        open(&mut schedule, seq, &[100; 4]);
        let mut late =
            |content: u8| schedule.late_answer(B, StageSeq(0), &mine, blake3::hash(&[content]));
        assert_eq!(late(0), Counted::Repeated);
        assert_eq!(late(1), Counted::Differs);
    }
}

#[test]
fn a_part_that_kills_three_workers_is_named_and_the_others_are_answered() {
    let mut schedule = Schedule::new(false);
    open(&mut schedule, 0, &[100; 5]);
    let mut culprits = Vec::new();
    for n in 0..MAX_DEATHS {
        schedule.join(WorkerId(n), &[]);
        // Until it gets the part that it dies of, the worker answers.
        while let Some((id, parts)) = grant(&mut schedule).pop() {
            if parts.contains(&PartId(2)) {
                culprits.extend(schedule.lose(id).err());
            } else {
                answer(&mut schedule, id, &parts);
            }
        }
    }
    assert_eq!(culprits, [Poisonous { part: PartId(2) }]);
    let others: Vec<u32> = schedule
        .open
        .iter()
        .map(|part| part.0)
        .chain(schedule.answered.iter().map(|part| part.0))
        .collect();
    assert!((0..5).all(|part| others.contains(&part)));
}

#[test]
fn deaths_in_different_stages_do_not_add_up_to_a_culprit() {
    let mut schedule = Schedule::new(false);
    for n in 0..3 * MAX_DEATHS {
        open(&mut schedule, u64::from(n), &[100; 4]);
        schedule.join(WorkerId(n), &[]);
        assert_eq!(grant(&mut schedule).len(), 1);
        assert_eq!(schedule.lose(WorkerId(n)), Ok(()));
    }
}

#[test]
fn a_worker_that_has_rows_already_is_their_home() {
    let mut schedule = Schedule::new(true);
    let mine = [PartId(5), PartId(6), PartId(7)];
    schedule.join(A, &[]);
    schedule.join(B, &mine);
    open(&mut schedule, 0, &[100; 8]);
    let grants = grant(&mut schedule);
    assert!(grants[0].1.iter().all(|part| !mine.contains(part)));
    assert!(grants[1].1.iter().all(|part| mine.contains(part)));
    assert_eq!(run_out(&mut schedule), 8);
}

#[test]
fn what_a_worker_is_late_with_goes_to_an_idle_one_too_and_the_first_answer_counts() {
    let mut schedule = schedule(2);
    let grants = grant(&mut schedule);
    answer(&mut schedule, A, &grants[0].1);
    // What was expected took 0.1 s.
    let late = grants[1].1.clone();
    assert_eq!(schedule.grant(Duration::from_millis(900)), []);
    assert_eq!(schedule.grant(Duration::from_secs(2)), [(A, late.clone())]);
    assert_eq!(answer(&mut schedule, A, &late), Counted::New);
    assert!(schedule.finish().is_some());
    // The late one gets nothing new before it has replied.
    open(&mut schedule, 1, &[100; 20]);
    let granted = schedule.grant(Duration::from_secs(2));
    assert!(granted.iter().all(|(id, _)| *id == A), "{granted:?}");
    schedule.late_answer(B, StageSeq(0), &late, blake3::hash(&[0]));
    assert_eq!(schedule.grant(Duration::from_secs(2))[0].0, B);
}

/// Plays a pass with workers of some speeds, in rows a second over resident rows; how long each was busy, in seconds.
fn play(
    schedule: &mut Schedule,
    seq: u64,
    n_parts: usize,
    speeds: &BTreeMap<WorkerId, f64>,
) -> BTreeMap<WorkerId, f64> {
    open(schedule, seq, &vec![1_000; n_parts]);
    let mut now = 0.0;
    let mut due: Vec<(f64, WorkerId, Vec<PartId>, f64)> = Vec::new();
    let mut ended = BTreeMap::new();
    loop {
        for (id, parts) in schedule.grant(Duration::from_secs_f64(now)) {
            let is_new = |part: &&PartId| {
                let holders = schedule.resident.get(part);
                !holders.is_some_and(|holders| holders.contains(&id))
            };
            let n_new = parts.iter().filter(is_new).count() as f64;
            let n_rows = schedule.rows(&parts) as f64;
            let seconds = n_rows / speeds[&id] + n_new * 1_000.0 * 5.0 / speeds[&id];
            due.push((now + seconds, id, parts, seconds));
        }
        due.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((at, id, parts, seconds)) = due.pop() else {
            panic!("the pass never ends");
        };
        now = at;
        ended.insert(id, now);
        let elapsed = Duration::from_secs_f64(seconds);
        answer_with(schedule, id, &parts, 0, elapsed);
        if schedule.finish().is_some() {
            // What is late is replied to in its time.
            for (_, id, parts, _) in &due {
                schedule.replied(*id, StageSeq(seq), parts);
            }
            return ended;
        }
    }
}

/// The first to end, as a share of the last.
fn evenness(ended: &BTreeMap<WorkerId, f64>) -> f64 {
    let first = ended.values().copied().fold(f64::INFINITY, f64::min);
    let last = ended.values().copied().fold(0.0, f64::max);
    first / last
}

#[test]
fn workers_of_different_speed_end_a_pass_together_within_20_percent() {
    for (a, b, c) in [(1e4, 1e4, 1e4), (1e4, 3e4, 1e4), (1e5, 1e4, 2e4)] {
        let ids = [A, B, WorkerId(2)];
        let speeds: BTreeMap<WorkerId, f64> = ids.into_iter().zip([a, b, c]).collect();
        let mut schedule = Schedule::new(true);
        ids.iter().for_each(|id| schedule.join(*id, &[]));
        let passes: Vec<_> = (0..12)
            .map(|seq| play(&mut schedule, seq, 120, &speeds))
            .collect();
        assert!(evenness(&passes[11]) > 0.8, "{passes:?}");
    }
}

#[test]
fn a_worker_that_joins_gets_a_share_that_evens_out_the_ends() {
    let mut speeds = BTreeMap::from([(A, 1e4), (B, 1e4)]);
    let mut schedule = schedule(1);
    let alone = (0..3).map(|seq| play(&mut schedule, seq, 120, &speeds));
    let before = alone.last().map(|ended| ended[&A]).unwrap();
    speeds.insert(WorkerId(2), 2e4);
    schedule.join(WorkerId(2), &[]);
    let passes: Vec<_> = (3..14)
        .map(|seq| play(&mut schedule, seq, 120, &speeds))
        .collect();
    let last = &passes[10];
    assert!(evenness(last) > 0.8, "{passes:?}");
    assert!(last[&A] < before * 0.65, "{before}: {passes:?}");
}

#[test]
fn shards_stay_where_they_are_when_workers_are_alike() {
    let speeds = BTreeMap::from([(A, 1e4), (B, 1.1e4)]);
    let mut schedule = schedule(1);
    play(&mut schedule, 0, 40, &speeds);
    play(&mut schedule, 1, 40, &speeds);
    let homes = schedule.homes.clone();
    play(&mut schedule, 2, 40, &speeds);
    assert_eq!(homes, schedule.homes);
}
