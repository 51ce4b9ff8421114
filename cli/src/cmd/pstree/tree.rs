//! Trees drawn with lines.

/// A node with what stands in front of the tree on its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    label: String,
    prefix: String,
    /// How many equal leaves this one stands for.
    count: usize,
    children: Vec<Tree>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Ascii,
    Box,
    Compact,
}

/// What connects lines: to a later line, to this line, to this line as the last, to none.
struct Connectors {
    pipe: &'static str,
    tee: &'static str,
    elbow: &'static str,
    blank: &'static str,
}

// === impl Style ===

impl Style {
    fn connectors(self) -> Connectors {
        match self {
            Style::Ascii => Connectors { pipe: "|   ", tee: "|-- ", elbow: "`-- ", blank: "    " },
            Style::Box => {
                Connectors { pipe: "│   ", tee: "├── ", elbow: "└── ", blank: "    " }
            }
            Style::Compact => {
                Connectors { pipe: "│ ", tee: "├─", elbow: "└─", blank: "  " }
            }
        }
    }
}

// === impl Tree ===

impl Tree {
    pub(super) fn new(label: impl Into<String>, prefix: impl Into<String>) -> Tree {
        let mut prefix = prefix.into();
        if !prefix.is_empty() {
            prefix.push(' ');
        }
        Tree { label: label.into(), prefix, count: 1, children: Vec::new() }
    }

    /// Add a child; leaves that look the same may be combined.
    pub(super) fn push(&mut self, child: Tree, combine: bool) {
        if combine && child.children.is_empty() {
            let same = self.children.iter_mut().find(|known| {
                known.children.is_empty()
                    && known.label == child.label
                    && known.prefix == child.prefix
            });
            if let Some(known) = same {
                known.count += 1;
                return;
            }
        }
        self.children.push(child);
    }

    /// Lines from top to bottom, without the root where it is only a place to hang trees on.
    pub(super) fn render(&self, style: Style, skip_root: bool) -> Vec<String> {
        let connectors = style.connectors();
        let mut lines = Vec::new();
        if skip_root {
            for child in &self.children {
                child.draw(&connectors, "", "", &mut lines);
            }
        } else {
            self.draw(&connectors, "", "", &mut lines);
        }
        lines
    }

    /// `connector` leads to this node, `margin` is in front of what is below it.
    fn draw(&self, style: &Connectors, connector: &str, margin: &str, lines: &mut Vec<String>) {
        let label = match self.count {
            1 => self.label.clone(),
            count => format!("{count}*[{}]", self.label),
        };
        lines.push(format!("{}{connector}{label}", self.prefix));
        for (n, child) in self.children.iter().enumerate() {
            let is_last = n + 1 == self.children.len();
            let (to_it, below) =
                if is_last { (style.elbow, style.blank) } else { (style.tee, style.pipe) };
            child.draw(style, &format!("{margin}{to_it}"), &format!("{margin}{below}"), lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut inner = Tree::new("b", "");
        inner.push(Tree::new("x", ""), true);
        inner.push(Tree::new("x", ""), true);
        let mut root = Tree::new(".", "");
        root.push(Tree::new("a", ""), true);
        root.push(inner, true);
        root.push(Tree::new("c", ""), true);
        root
    }

    #[test]
    fn lines_connect_parents_and_children() {
        let lines = tree().render(Style::Box, false);
        assert_eq!(lines, [".", "├── a", "├── b", "│   └── 2*[x]", "└── c"]);
        let lines = tree().render(Style::Ascii, false);
        assert_eq!(lines, [".", "|-- a", "|-- b", "|   `-- 2*[x]", "`-- c"]);
    }

    #[test]
    fn without_the_root_its_children_are_trees() {
        assert_eq!(tree().render(Style::Compact, true), ["a", "b", "└─2*[x]", "c"]);
    }

    #[test]
    fn details_stand_in_front_of_the_tree() {
        let mut root = Tree::new(".", "1");
        root.push(Tree::new("a", "2"), false);
        root.push(Tree::new("a", "2"), false);
        assert_eq!(root.render(Style::Box, false), ["1 .", "2 ├── a", "2 └── a"]);
    }
}
