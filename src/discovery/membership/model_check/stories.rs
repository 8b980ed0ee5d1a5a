//! The stories of clusters that share addresses, each with no id known, all known, and some known, and with nodes asked in
//! different orders.
//!
//! Nodes 1, 2 and 3 are cluster A's, 4 to 7 are B's, 8 and 9 are C's, which has no zone. The zone "a" is of A, "b" of B.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    driver::State,
    world::{Happening, Ids, World, address},
};
use crate::types::{ClusterLabel, NodeSet};

/// The zones in [`Story::new`].
const A: usize = 0;
const B: usize = 1;

/// Rounds after which the truth is answered once the world stands still.
const ROUNDS_TO_TRUTH: usize = 2;

/// Orders of asking in which each story is played.
const ORDERS: u64 = 12;

struct Story {
    state: State,
    chance: StdRng,
    /// Addresses that must not be answered by the zone "b".
    never: Vec<usize>,
    what: String,
}

impl Story {
    /// Owners of 1 to 9, and the seeds of both zones. All is settled.
    fn new(seed: u64, ids: Ids, owners: &str, seeds: [&[usize]; 2]) -> Self {
        Self::of(seed, World::new(owners, ids), &[(0, seeds[0], &[]), (1, seeds[1], &[])])
    }

    fn of(seed: u64, world: World, zones: &[(u8, &[usize], &[u8])]) -> Self {
        let mut story = Self::unlearnt(seed, world, zones);
        story.rounds(3);
        story
    }

    /// No zone has had a turn.
    fn unlearnt(seed: u64, world: World, zones: &[(u8, &[usize], &[u8])]) -> Self {
        let zones: Vec<(u8, Vec<usize>, &[u8])> =
            zones.iter().map(|(cluster, seeds, scopes)| (*cluster, indexes(seeds), *scopes)).collect();
        let zones: Vec<_> = zones.iter().map(|(cluster, seeds, scopes)| (*cluster, &seeds[..], *scopes)).collect();
        let what = format!("order {seed}, ids {:?}", world.ids);
        Self { state: State::new(world, &zones), chance: StdRng::seed_from_u64(seed), never: Vec::new(), what }
    }

    fn happens(&mut self, happening: Happening) -> &mut Self {
        self.state.world = self.state.world.clone().after(happening);
        self
    }

    fn dies(&mut self, nodes: &[usize]) -> &mut Self {
        nodes.iter().for_each(|n| _ = self.happens(Happening::Crash(n - 1)));
        self
    }

    fn returns(&mut self, nodes: &[usize]) -> &mut Self {
        nodes.iter().for_each(|n| _ = self.happens(Happening::Return(n - 1)));
        self
    }

    /// The addresses are given to a cluster, whose other nodes know at once.
    fn recycled(&mut self, nodes: &[usize], cluster: u8) -> &mut Self {
        nodes.iter().for_each(|n| _ = self.happens(Happening::Recycle(n - 1, cluster)));
        self.gossips(cluster)
    }

    fn joins(&mut self, nodes: &[usize], cluster: u8) -> &mut Self {
        nodes.iter().for_each(|n| _ = self.happens(Happening::Join(n - 1, cluster)));
        self.gossips(cluster)
    }

    /// Gossip catches up in all nodes of a cluster.
    fn gossips(&mut self, cluster: u8) -> &mut Self {
        for n in self.state.world.all().filter(|n| self.state.world.serves(*n, cluster)).collect::<Vec<_>>() {
            self.happens(Happening::Gossip(n));
        }
        self
    }

    fn settles(&mut self) -> &mut Self {
        self.state.world = self.state.world.clone().calmed();
        self
    }

    /// So many turns of each zone.
    fn rounds(&mut self, rounds: usize) -> &mut Self {
        for _ in 0..rounds * self.state.zones.len() {
            self.turn();
        }
        self
    }

    /// One turn of the zone whose turn it is.
    fn turn(&mut self) -> &mut Self {
        let zone = self.state.turn;
        self.state.begin_turn();
        let mut order = self.state.candidates(zone);
        order.shuffle(&mut self.chance);
        self.state.poll(&order);
        self.state.end_turn();
        if zone == B {
            let answered = |n: &&usize| self.state.answered(B).contains(&address(**n - 1));
            let wrong = self.never.iter().find(answered);
            assert_eq!(wrong, None, "{}: answered {:?}", self.what, self.state.answered(B));
        }
        self
    }

    /// From now on the zone "b" must not answer these.
    fn never(&mut self, nodes: &[usize]) -> &mut Self {
        self.never.extend(nodes);
        self
    }

    /// The zone answers exactly the living nodes of its cluster, within [`ROUNDS_TO_TRUTH`], and goes on to.
    fn ends_right(&mut self, zone: usize) -> &mut Self {
        self.rounds(ROUNDS_TO_TRUTH);
        for _ in 0..4 {
            let truth = self.state.truth(zone);
            assert_eq!(self.state.zones[zone].answers.answered, truth, "{}", self.what);
            self.rounds(1);
        }
        self
    }

    /// The zone answers these.
    fn answers(&mut self, zone: usize, nodes: &[usize]) -> &mut Self {
        let expected = NodeSet::new(nodes.iter().map(|n| address(n - 1)));
        assert_eq!(self.state.zones[zone].answers.answered, expected, "{}", self.what);
        self
    }
}

fn indexes(nodes: &[usize]) -> Vec<usize> {
    nodes.iter().map(|n| n - 1).collect()
}

/// Plays a story in every order, with these ids.
fn play(ids: &[Ids], story: impl Fn(u64, Ids)) {
    for &ids in ids {
        (0..ORDERS).for_each(|seed| story(seed, ids));
    }
}

const ANY: [Ids; 3] = [Ids::None, Ids::All, Ids::Some];

#[test]
fn v1_a_recycled_seed_stays_out_when_all_of_the_cluster_dies_later() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.dies(&[4]).rounds(2).recycled(&[4], 0).never(&[4]).rounds(2).settles().ends_right(B).answers(B, &[5, 6]);
        story.dies(&[5, 6]).rounds(6).returns(&[5, 6]).settles().ends_right(B).ends_right(A);
    });
}

#[test]
fn v1f_the_same_without_a_failure_between() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.recycled(&[4], 0).rounds(3).settles().ends_right(B).never(&[4]).answers(B, &[5, 6]);
        story.dies(&[5, 6]).rounds(6).returns(&[5, 6]).settles().ends_right(B).ends_right(A);
    });
}

#[test]
fn v2_one_of_two_is_recycled_into_another_zone_or_into_none() {
    play(&ANY, |seed, ids| {
        for cluster in [0, 2] {
            let mut story = Story::new(seed, ids, "AAABB..C.", [&[1], &[4]]);
            story.dies(&[4]).rounds(2).recycled(&[4], cluster).never(&[4]).rounds(10).answers(B, &[5]);
            story.settles().ends_right(B).ends_right(A);
            let mut story = Story::new(seed, ids, "AAABB..C.", [&[1], &[4]]);
            story.recycled(&[4], cluster).rounds(3).settles().ends_right(B).never(&[4]).rounds(10).ends_right(A);
        }
    });
}

#[test]
fn v3_a_scope_falls_back_to_the_other_datacenter_and_returns() {
    play(&ANY, |seed, ids| {
        for (east, west_scopes) in [(&[1][..], &[1][..]), (&[1], &[]), (&[1, 4], &[1])] {
            let world = World::new("AAAaaa", ids);
            let zones: [(u8, &[usize], &[u8]); 2] = [(0, east, &[0, 1]), (0, &[4], west_scopes)];
            let mut story = Story::of(seed, world, &zones);
            story.ends_right(A).answers(A, &[1, 2, 3]);
            story.dies(&[1, 2, 3]).rounds(1).settles().ends_right(A).answers(A, &[4, 5, 6]);
            if west_scopes.is_empty() {
                story.ends_right(B);
            }
            story.state.restart(A);
            story.ends_right(A).returns(&[1, 2, 3]).settles().rounds(2).ends_right(A).answers(A, &[1, 2, 3]);
        }
    });
}

#[test]
fn v3_a_restart_in_the_outage_finds_the_other_datacenter_in_the_snapshot() {
    play(&ANY, |seed, ids| {
        let world = World::new("AAAaaa", ids);
        let mut story = Story::of(seed, world, &[(0, &[1], &[0, 1]), (0, &[4], &[1])]);
        story.rounds(2).dies(&[1, 2, 3]).settles();
        story.state.restart(A);
        story.rounds(2).ends_right(A).answers(A, &[4, 5, 6]);
    });
}

#[test]
fn v4_a_seed_that_was_recycled_long_ago_narrows_nothing_after_a_restart() {
    play(&ANY, |seed, ids| {
        for seeds in [&[4][..], &[4, 5]] {
            let mut story = Story::new(seed, ids, "AAABBBB..", [&[1], seeds]);
            story.dies(&[4]).settles().rounds(3).recycled(&[4], 0).never(&[4]).settles().ends_right(B);
            story.state.restart(B);
            story.rounds(1).ends_right(B).answers(B, &[5, 6, 7]);
            story.state.edit(B, 1, &indexes(&[4, 5]));
            story.ends_right(B).answers(B, &[5, 6, 7]);
        }
    });
}

#[test]
fn v5_the_survivor_that_still_lists_its_dead_peer_stays() {
    play(&ANY, |seed, ids| {
        for cluster in [0, 2] {
            let mut story = Story::new(seed, ids, "AAABB..C.", [&[1], &[5]]);
            story.dies(&[4]).rounds(2).recycled(&[4], cluster).never(&[4]);
            for _ in 0..12 {
                story.rounds(1).answers(B, &[5]);
            }
            story.settles().ends_right(B);
        }
    });
}

#[test]
fn v7_a_large_cluster_is_never_narrowed() {
    let all: Vec<usize> = (1..=60).collect();
    for ids in ANY {
        let mut story = Story::of(7, World::new(&"A".repeat(60), ids), &[(0, &[1], &[])]);
        story.rounds(3).answers(A, &all);
        story.state.zones[A].seeds.push(1);
        story.state.restart(A);
        story.answers(A, &all);
        for _ in 0..3 {
            story.rounds(1).answers(A, &all);
        }
        story.dies(&all);
        for _ in 0..10 {
            story.rounds(1).answers(A, &all);
        }
        story.returns(&all).settles();
        for _ in 0..4 {
            story.rounds(1).answers(A, &all);
        }
    }
}

#[test]
fn g1_a_cluster_of_one_grows() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAAB.....", [&[1], &[4]]);
        story.joins(&[5], 1).ends_right(B).joins(&[6], 1).ends_right(B).answers(B, &[4, 5, 6]);
    });
}

#[test]
fn g2_a_survivor_that_is_no_seed_keeps_the_zone() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABB....", [&[1], &[4]]);
        story.dies(&[4]).rounds(2).happens(Happening::Replace(3, 6)).gossips(1).ends_right(B).answers(B, &[5, 7]);
    });
}

#[test]
fn g3_two_of_three_are_replaced_while_we_are_off() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.happens(Happening::Replace(3, 6)).dies(&[5]).settles();
        story.state.restart(B);
        story.rounds(1).ends_right(B).answers(B, &[6, 7]);
    });
}

#[test]
fn g4_two_of_three_are_recycled_one_after_the_other() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB.CC", [&[1], &[4]]);
        story.dies(&[4]).rounds(2).recycled(&[4], 2).never(&[4]).rounds(3).dies(&[5]).rounds(2);
        story.recycled(&[5], 2).never(&[5]).rounds(3).settles().ends_right(B).answers(B, &[6]);
    });
}

#[test]
fn g4_the_second_is_recycled_while_survivors_list_the_first_and_is_not_seen_down() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBBBCC", [&[1], &[4]]);
        story.dies(&[4]).rounds(2).recycled(&[4], 2).never(&[4]).rounds(3);
        story.recycled(&[5], 2).rounds(3).settles().ends_right(B).answers(B, &[6, 7]);
    });
}

#[test]
fn g5_a_cluster_that_died_whole_does_not_become_the_one_that_got_an_address() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBBBCC", [&[1], &[4]]);
        story.dies(&[4, 5, 6, 7]).rounds(3).recycled(&[5], 2).never(&[8, 9]).rounds(3).returns(&[4]).settles();
        story.rounds(1).ends_right(B).answers(B, &[4]);
    });
}

#[test]
fn s1_s2_two_of_four_are_recycled_together() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBBB..", [&[1], &[4]]);
        story.dies(&[4, 5]).rounds(2).recycled(&[4, 5], 0).never(&[1, 2, 3, 4, 5]).rounds(3).settles();
        story.ends_right(B).answers(B, &[6, 7]).ends_right(A);
        let mut story = Story::new(seed, ids, "AAABBBB..", [&[1], &[4]]);
        story.recycled(&[4, 5], 0).never(&[1, 2, 3]).rounds(3).settles().ends_right(B).answers(B, &[6, 7]);
    });
}

#[test]
fn s3_two_of_five_are_recycled_while_we_are_off() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBBBB.", [&[1], &[4]]);
        story.recycled(&[4, 5], 0).settles().never(&[1, 2, 3]);
        story.state.restart(B);
        story.rounds(1).never(&[4, 5]).ends_right(B).answers(B, &[6, 7, 8]);
    });
}

#[test]
fn i7_s4_two_of_three_are_recycled_while_we_are_off_and_ids_tell() {
    play(&[Ids::All], |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB.CC", [&[1], &[4]]);
        story.recycled(&[4, 5], 2).settles().never(&[8, 9]);
        story.state.restart(B);
        story.rounds(1).never(&[4, 5]).ends_right(B).answers(B, &[6]);
    });
}

#[test]
fn s5_two_nodes_swap_clusters() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.dies(&[3, 6]).rounds(2).recycled(&[3], 1).recycled(&[6], 0).never(&[6]).rounds(2).settles();
        story.ends_right(A).ends_right(B);
    });
}

#[test]
fn s6_s7_a_power_loss_ends_with_all_nodes() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBBB..", [&[1], &[4]]);
        story.dies(&[4, 5, 6, 7]).rounds(4);
        for n in [5, 7, 4, 6] {
            story.returns(&[n]).settles().ends_right(B);
        }
        story.dies(&[4, 5, 6, 7]).rounds(4).returns(&[4, 5, 6, 7]).settles().ends_right(B);
        story.dies(&[4, 5, 6, 7]).rounds(4);
        story.state.restart(B);
        story.rounds(2).returns(&[4, 5, 6, 7]).settles().ends_right(B);
    });
}

#[test]
fn s8_s9_s10_the_name_is_moved_by_editing_the_seeds() {
    play(&ANY, |seed, ids| {
        for (cluster, seeds) in [(2, &[8][..]), (0, &[2])] {
            for is_dead in [false, true] {
                let mut story = Story::new(seed, ids, "AAABBBBCC", [&[1], &[4]]);
                if is_dead {
                    story.dies(&[4, 5, 6, 7]).rounds(4);
                }
                story.state.edit(B, cluster, &indexes(seeds));
                story.ends_right(B);
            }
        }
    });
}

#[test]
fn s11_s12_a_node_changes_its_cluster_for_good_and_comes_back() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.dies(&[2]).settles().rounds(3).recycled(&[2], 1).settles().ends_right(A).ends_right(B);
        story.dies(&[2]).settles().rounds(3).recycled(&[2], 0).settles().ends_right(A).ends_right(B);
    });
}

#[test]
fn s13_every_address_is_replaced_one_by_one() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        for (from, to) in [(4, 7), (5, 8), (6, 9)] {
            story.happens(Happening::Replace(from - 1, to - 1)).rounds(2).settles().ends_right(B);
        }
        story.state.restart(B);
        story.rounds(1).ends_right(B).answers(B, &[7, 8, 9]);
    });
}

#[test]
fn s14_a_new_node_joins_while_its_peer_dies() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABB....", [&[1], &[4]]);
        story.dies(&[4]).joins(&[7], 1).rounds(2).settles().ends_right(B).answers(B, &[5, 7]);
    });
}

#[test]
fn s15_an_isolated_node_that_left_is_found_again() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.happens(Happening::Isolate(4)).gossips(1).rounds(3).answers(B, &[4, 6]);
        story.dies(&[4, 6]).rounds(3).settles().rounds(1).ends_right(B).answers(B, &[5]);
    });
}

#[test]
fn s16_two_nodes_return_while_the_standing_one_is_isolated() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.dies(&[2, 3]).settles().rounds(3).returns(&[2, 3]).happens(Happening::Isolate(0)).gossips(0).rounds(4);
        story.settles().ends_right(A).answers(A, &[1, 2, 3]);
    });
}

#[test]
fn i2_i5_a_cluster_is_built_anew() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB.CC", [&[1], &[4]]);
        story.dies(&[4, 5, 6]).rounds(3);
        story.state.edit(B, 2, &indexes(&[8, 9]));
        story.ends_right(B).answers(B, &[8, 9]);
        // On the same addresses: its nodes are another cluster's by id.
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.dies(&[4, 5, 6]).rounds(3).recycled(&[4, 5, 6], 2).settles();
        story.state.zones[B].cluster = 2;
        story.rounds(1).ends_right(B).answers(B, &[4, 5, 6]);
    });
}

#[test]
fn i8_a_clone_with_the_same_id_stays_out_while_the_cluster_lives() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        // The clone is a node that gives the same id, and sees no node of the cluster.
        story.dies(&[4]).rounds(2).settles().returns(&[4]).happens(Happening::Isolate(3)).settles_but(3);
        story.never(&[4]).rounds(6).answers(B, &[5, 6]);
    });
}

impl Story {
    /// All but one node see each other.
    fn settles_but(&mut self, n: usize) -> &mut Self {
        self.happens(Happening::Gossip(n)).gossips(1)
    }
}

#[test]
fn w_a_seed_that_does_not_list_itself_is_a_witness() {
    play(&ANY, |seed, ids| {
        let world = World::new("AAAa", ids);
        let mut story = Story::of(seed, world, &[(0, &[4], &[0])]);
        story.ends_right(A).answers(A, &[1, 2, 3]);
        story.dies(&[2]).settles().rounds(1).ends_right(A).answers(A, &[1, 3]);
    });
}

#[test]
fn h_without_health_listed_nodes_are_answered_and_foreign_ones_are_not() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBB...", [&[1], &[4]]);
        story.state.without_health(B);
        story.rounds(3).answers(B, &[4, 5, 6]).dies(&[5]).rounds(4).answers(B, &[4, 5, 6]);
        story.recycled(&[5], 0).rounds(4).never(&[5]).rounds(2).settles().ends_right(B);
    });
}

#[test]
fn a_label_exempts_zones_of_one_cluster() {
    let mut story = Story::new(1, Ids::None, "AAABBB...", [&[1], &[2]]);
    for zone in &mut story.state.zones {
        zone.label = ClusterLabel::parse("prod");
        zone.cluster = 0;
    }
    story.ends_right(A).ends_right(B);
}

#[test]
fn a_node_that_belonged_is_remembered_although_all_of_its_probes_failed() {
    play(&ANY, |seed, ids| {
        let mut story = Story::unlearnt(seed, World::new("AA.......", ids), &[(0, &[1], &[])]);
        story.rounds(1).dies(&[2]).rounds(2).settles().rounds(1).answers(A, &[1]);
        story.dies(&[1]).rounds(2).returns(&[2]).settles().ends_right(A).answers(A, &[2]);
    });
}

#[test]
fn no_id_is_learnt_from_what_a_node_said_before_the_last_confirmed_one_failed() {
    play(&ANY, |seed, ids| {
        let zones: [(u8, &[usize], &[u8]); 2] = [(0, &[1], &[]), (1, &[4, 5], &[])];
        let mut story = Story::unlearnt(seed, World::new("AAABB....", ids), &zones);
        story.happens(Happening::Recycle(4, 2)).rounds(3).answers(B, &[4]);
        story.happens(Happening::Recycle(4, 1)).dies(&[4]).joins(&[6], 1).settles().ends_right(B).answers(B, &[5, 6]);
    });
}

#[test]
fn a_node_that_lists_a_new_one_is_not_foreign_while_the_others_have_lost_sight_of_it() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AA.BB....", [&[1], &[4]]);
        story.joins(&[8], 0).happens(Happening::Isolate(1)).happens(Happening::Gossip(0));
        for _ in 0..3 {
            story.rounds(1);
            assert!(story.state.answered(A).contains(&address(1)), "{}", story.what);
        }
    });
}

#[test]
fn a_node_that_joins_the_cluster_from_which_the_name_was_moved_is_foreign() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABB....", [&[1], &[4]]);
        story.state.edit(B, 0, &indexes(&[1]));
        story.ends_right(B).answers(B, &[1, 2, 3]).recycled(&[3], 1).rounds(3).never(&[3]).rounds(4);
        story.settles().ends_right(B).answers(B, &[1, 2]);
    });
}

#[test]
fn a_fallback_is_answered_at_once_where_the_better_scope_has_foreign_nodes_only() {
    play(&ANY, |seed, ids| {
        let mut story = Story::of(seed, World::new("AAaBBB...", ids), &[(0, &[1], &[0, 1]), (1, &[4], &[])]);
        story.dies(&[1]).rounds(2).recycled(&[1], 1).rounds(3).recycled(&[2], 1);
        for _ in 0..4 {
            story.rounds(1);
            assert!(!story.state.answered(A).is_empty(), "{}", story.what);
        }
        story.settles().ends_right(A).answers(A, &[3]);
    });
}

#[test]
fn a_remembered_node_that_was_refuted_is_not_answered_again_before_it_belongs() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABBBB..", [&[1], &[4]]);
        story.happens(Happening::Recycle(4, 2));
        story.state.restart(B);
        story.rounds(2).answers(B, &[4, 6, 7]).never(&[5]);
        story.dies(&[6]).rounds(2).recycled(&[6], 2).rounds(4).settles().ends_right(B).answers(B, &[4, 7]);
    });
}

#[test]
fn a_seed_without_a_known_node_moves_the_name() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AAABB..C.", [&[1], &[4]]);
        story.dies(&[4, 5]).rounds(3);
        story.state.edit(B, 2, &indexes(&[8]));
        story.ends_right(B).answers(B, &[8]);
        let view = story.state.zones[B].membership.view();
        assert_eq!((view.cluster_id(), view.others()), (story.state.world.id(7), None), "{}", story.what);
    });
}

#[test]
fn a_node_that_lists_what_the_zone_lists_no_more_is_foreign_where_scopes_are_set() {
    play(&ANY, |seed, ids| {
        let mut story = Story::unlearnt(seed, World::new("AAaa.....", ids), &[(0, &[1], &[0, 1])]);
        // 1 is the last that lists 4.
        story.happens(Happening::Recycle(3, 2)).happens(Happening::Gossip(1)).happens(Happening::Gossip(2)).rounds(1);
        story.happens(Happening::Gossip(0)).happens(Happening::Recycle(1, 2)).rounds(3);
        assert!(!story.state.answered(A).contains(&address(1)), "{}", story.what);
        story.settles().ends_right(A).answers(A, &[1]);
    });
}

#[test]
fn a_zone_is_assessed_again_when_another_zone_answers_its_nodes_no_more() {
    play(&ANY, |seed, ids| {
        let mut story = Story::new(seed, ids, "AA.B.....", [&[1], &[4]]);
        story.turn().state.pause(B);
        story.recycled(&[2], 1).joins(&[3], 1).settles().rounds(4).ends_right(A).ends_right(B);
        story.answers(B, &[2, 3, 4]);
    });
}
