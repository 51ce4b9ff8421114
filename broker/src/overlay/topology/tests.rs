use proptest::prelude::*;

use super::*;

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (0..40_u32).prop_map(Shape::Kary),
        prop::option::of(0..40_u32).prop_map(Shape::Mincrit),
        Just(Shape::Binomial),
        Just(Shape::Custom),
    ]
}

/// Any tree: each rank's parent is one that comes earlier in a random order.
fn trees() -> impl Strategy<Value = Topology> {
    let random = (1..200_usize).prop_flat_map(|size| {
        let order = Just((1..size as u32).collect::<Vec<u32>>()).prop_shuffle();
        (order, prop::collection::vec(any::<prop::sample::Index>(), size)).prop_map(
            move |(order, picks)| {
                let mut parents = vec![0; size];
                let mut placed = vec![0];
                for (rank, pick) in order.iter().zip(picks) {
                    parents[*rank as usize] = *pick.get(&placed);
                    placed.push(*rank);
                }
                Topology::from_parents(&parents).unwrap()
            },
        )
    });
    let regular = (shapes(), 1..200_u32).prop_map(|(s, size)| Topology::new(s, size).unwrap());
    prop_oneof![random, regular]
}

fn walk(tree: &Topology, from: u32, to: u32) -> Vec<u32> {
    let mut path = vec![from];
    let mut at = from;
    loop {
        at = match tree.next_hop(at, to).unwrap() {
            Hop::Here => return path,
            Hop::Parent => tree.parent(at).unwrap(),
            Hop::Child(child) => {
                assert!(tree.children(at).contains(&child));
                child
            }
        };
        path.push(at);
        assert!(path.len() <= 2 * tree.max_level() as usize + 1, "{path:?}");
    }
}

proptest! {
    #[test]
    fn every_rank_reaches_every_rank_without_detour(
        tree in trees(),
        a in any::<u32>(),
        b in any::<u32>(),
    ) {
        let (a, b) = (a % tree.size(), b % tree.size());
        let mut there = walk(&tree, a, b);
        there.reverse();
        prop_assert_eq!(there, walk(&tree, b, a));
    }

    #[test]
    fn parents_and_children_agree(tree in trees()) {
        let mut found = 0;
        for rank in 0..tree.size() {
            let mut below = 0;
            for &child in tree.children(rank) {
                prop_assert_eq!(tree.parent(child), Some(rank));
                prop_assert_eq!(tree.level(child), tree.level(rank) + 1);
                below += 1 + tree.descendants(child);
                found += 1;
            }
            prop_assert!(tree.children(rank).is_sorted());
            prop_assert_eq!(tree.descendants(rank), below);
            prop_assert_eq!(tree.subtree(rank).count(), u64::from(below) + 1);
        }
        prop_assert_eq!(found, tree.size() - 1);
    }

    #[test]
    fn subtree_holds_those_whose_way_to_the_root_leads_through_it(
        tree in trees(),
        root in any::<u32>(),
    ) {
        let root = root % tree.size();
        let subtree = tree.subtree(root);
        for rank in 0..tree.size() {
            prop_assert_eq!(walk(&tree, rank, 0).contains(&root), subtree.contains(rank));
            prop_assert_eq!(tree.contains(root, rank), subtree.contains(rank));
        }
    }

    #[test]
    fn description_has_every_rank_of_the_subtree(tree in trees()) {
        fn check(tree: &Topology, node: &TopologyResponse) {
            let children: Vec<u32> = node.children.iter().map(|child| child.rank).collect();
            assert_eq!(children, tree.children(node.rank));
            assert_eq!(node.size, tree.descendants(node.rank) + 1);
            node.children.iter().for_each(|child| check(tree, child));
        }
        check(&tree, &tree.describe(0));
    }

    #[test]
    fn any_parents_are_a_tree_or_an_error(parents in prop::collection::vec(0..30_u32, 1..30)) {
        match Topology::from_parents(&parents) {
            Ok(tree) => prop_assert_eq!(tree.descendants(0) + 1, tree.size()),
            Err(TopologyError::Cycle { rank, parent }) => {
                let mut at = parent;
                while at != rank {
                    prop_assert_ne!(at, 0);
                    at = parents[at as usize];
                }
            }
            Err(TopologyError::NoSuchParent { rank, parent }) => {
                prop_assert_eq!(parents[rank as usize], parent);
                prop_assert!(parent as usize >= parents.len());
            }
            Err(TopologyError::Empty) => prop_assert!(false),
        }
    }

    #[test]
    fn shape_survives_its_text(shape in shapes()) {
        prop_assert_eq!(shape.to_string().parse(), Ok(shape));
    }
}

#[test]
fn kary_trees_are_filled_level_by_level() {
    let tree = Topology::new(Shape::Kary(2), 15).unwrap();
    assert_eq!(tree.children(0), [1, 2]);
    assert_eq!(tree.children(2), [5, 6]);
    assert_eq!(tree.children(6), [13, 14]);
    assert_eq!((tree.level(14), tree.max_level()), (3, 3));
    assert_eq!(tree.critical_ranks().encode(), "0-6");
    assert_eq!(Topology::new(Shape::Kary(1), 4).unwrap().max_level(), 3);
    assert_eq!(Topology::new(Shape::Kary(0), 4).unwrap().children(0), [1, 2, 3]);
    assert_eq!(Topology::new(Shape::Kary(256), 16).unwrap().max_level(), 1);
}

#[test]
fn mincrit_trees_have_routers_and_leaves() {
    let tree = Topology::new(Shape::Mincrit(Some(2)), 7).unwrap();
    assert_eq!(tree.children(0), [1, 2]);
    assert_eq!(tree.children(1), [3, 5]);
    assert_eq!(tree.children(2), [4, 6]);
    assert_eq!(Topology::new(Shape::Mincrit(None), 1025).unwrap().max_level(), 1);
    let large = Topology::new(Shape::Mincrit(None), 10_000).unwrap();
    assert_eq!(large.children(0).len(), 10);
    assert!((1..=10).all(|router| large.children(router).len() <= 1024));
}

#[test]
fn binomial_tree_of_eight() {
    let tree = Topology::new(Shape::Binomial, 8).unwrap();
    assert_eq!(tree.children(0), [1, 2, 4]);
    assert_eq!(tree.children(2), [3]);
    assert_eq!(tree.children(4), [5, 6]);
    assert_eq!(tree.children(6), [7]);
}

#[test]
fn chain_of_ten_thousand_brokers_routes_end_to_end() {
    let tree = Topology::new(Shape::Kary(1), 10_000).unwrap();
    assert_eq!(tree.next_hop(0, 9999), Some(Hop::Child(1)));
    assert_eq!(tree.next_hop(9999, 0), Some(Hop::Parent));
    assert_eq!(tree.next_hop(5000, 4999), Some(Hop::Parent));
    assert_eq!(tree.next_hop(0, 10_000), None);
}

#[test]
fn cycle_is_told_by_the_rank_that_closes_it() {
    let error = Topology::from_parents(&[0, 3, 1, 2, 0]).unwrap_err();
    assert_eq!(error, TopologyError::Cycle { rank: 3, parent: 2 });
    let error = Topology::from_parents(&[0, 9]).unwrap_err();
    assert_eq!(error, TopologyError::NoSuchParent { rank: 1, parent: 9 });
}

#[test]
fn unknown_shapes_are_refused_by_name() {
    let error = |text: &str| text.parse::<Shape>().unwrap_err().to_string();
    assert_eq!(error("star"), "unknown topology scheme 'star'");
    assert_eq!(error("kary:x"), "kary k value must be an integer >= 0");
    assert_eq!(error("kary"), "kary k value must be an integer >= 0");
    assert_eq!(error("binomial:3"), "unknown binomial topology directive: '3'");
}
