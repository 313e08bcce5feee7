//! A configuration written out as the similarity matrices it compares and the rows it compares them by.

use crate::config::{Blend, Divergence, LossConfig, SoftClipConfig, TargetGrad, TextBasedConfig};
use crate::inputs::Set;

/// What multiplies a matrix of cosines, and where its scale's gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Logits: times 1/τ.
    Logits,
    /// The targets' similarities: times 1/τ of the targets.
    Guide,
    /// Similarities used as label rows: as they are, frozen; negative entries count as 0 where they will be normalised.
    Labels { clamp: bool },
}

/// `weight · left rightᵀ`, one term of a matrix.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(super) struct Product {
    pub left: Set,
    pub right: Set,
    pub weight: f64,
    /// Whether anything behind this product wants a gradient.
    pub flow: bool,
}

/// An [N, N] matrix that never exists as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    pub role: Role,
    pub products: Vec<Product>,
}

impl Matrix {
    fn new(role: Role, products: Vec<Product>) -> Self {
        let mut products = products;
        products.sort_by_key(|p| (p.left, p.right));
        Matrix { role, products }
    }

    fn one(role: Role, left: Set, right: Set, flow: bool) -> Self {
        Matrix::new(role, vec![Product { left, right, weight: 1.0, flow }])
    }

    fn transposed(&self) -> Self {
        let flip = |p: &Product| Product { left: p.right, right: p.left, ..p.clone() };
        Matrix::new(self.role, self.products.iter().map(flip).collect())
    }

    /// (M + Mᵀ)/2.
    fn symmetrized(&self) -> Self {
        let both = self.products.iter().cloned().chain(self.transposed().products);
        Matrix::new(self.role, both.map(|p| Product { weight: p.weight / 2.0, ..p }).collect())
    }

    pub(super) fn flows(&self) -> bool {
        self.products.iter().any(|p| p.flow)
    }
}

/// A matrix as a block [I, J] shows it: `rows` is the matrix, whose queries are the block's rows; `columns` its transpose, whose queries
/// are the block's columns. Both are indices into [`Plan::matrices`], where equal matrices are one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oriented {
    pub rows: usize,
    pub columns: usize,
}

/// What a row's prediction is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// The own pair, or eq. (5) for α > 0.
    Smoothed { alpha: f64 },
    /// (1 − α)·identity + α·matrix.
    Labels { matrix: Oriented, alpha: f64, normalized: bool },
    /// Eqs (6) to (15).
    Guided { matrix: Oriented, divergence: Divergence },
}

/// Rows of one softmax: image→text or text→image, under one target.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    /// 0: image→text (v2l), 1: text→image (l2v).
    pub side: usize,
    pub logits: Oriented,
    pub target: Target,
    /// Weights of the row's soft, relation-enhanced and cross-entropy terms in the loss, before the mean over rows and directions.
    pub soft: f64,
    pub relation: f64,
    pub hard: f64,
    /// Share of this target in the parts `soft` and `relation`: γ or 1 − γ, else 1.
    pub mix: f64,
}

/// The matrices and the directions over them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub matrices: Vec<Matrix>,
    pub directions: Vec<Direction>,
}

impl Plan {
    /// For every loss but SigLIP's, which is no softmax.
    pub fn new(config: &LossConfig, n: i64) -> Self {
        let mut plan = Plan::default();
        match config {
            LossConfig::Softclip(c) => plan.softclip(c, n),
            LossConfig::TextBased(c) => plan.text_based(c),
            LossConfig::LabelSmoothing(c) => plan.smoothed(c.alpha, 1.0),
            LossConfig::Clip(_) | LossConfig::Siglip(_) => plan.smoothed(0.0, 1.0),
        }
        plan
    }

    fn place(&mut self, m: Matrix) -> Oriented {
        let columns = self.index(m.transposed());
        Oriented { rows: self.index(m), columns }
    }

    fn index(&mut self, m: Matrix) -> usize {
        if let Some(found) = self.matrices.iter().position(|x| *x == m) {
            return found;
        }
        self.matrices.push(m);
        self.matrices.len() - 1
    }

    fn logits(&mut self, side: usize) -> Oriented {
        let (left, right) = if side == 0 { (Set::Image, Set::Text) } else { (Set::Text, Set::Image) };
        self.place(Matrix::one(Role::Logits, left, right, true))
    }

    fn smoothed(&mut self, alpha: f64, hard: f64) {
        for side in 0..2 {
            let logits = self.logits(side);
            let target = Target::Smoothed { alpha };
            self.directions.push(Direction { side, logits, target, soft: 0.0, relation: 0.0, hard, mix: 1.0 });
        }
    }

    fn softclip(&mut self, c: &SoftClipConfig, n: i64) {
        if !c.has_targets() {
            return self.smoothed(0.0, c.mu);
        }
        // With two pairs one entry is left off the diagonal: its softmax is 1 on both sides, whatever rounding says.
        let lambda = if n == 2 { 0.0 } else { c.lambda };
        let flow = c.target_grad == TargetGrad::Flow;
        let mut hard = c.mu;
        for (guided_by_pairs, mix) in [(false, c.gamma), (true, 1.0 - c.gamma)] {
            if mix == 0.0 {
                continue;
            }
            for side in 0..2 {
                let (x, y): (Set, Set) = if guided_by_pairs {
                    let own = if side == 0 { Set::Image } else { Set::Text };
                    (own, own)
                } else {
                    let (x, y) = c.forms[side].guides();
                    (x.into(), y.into())
                };
                let logits = self.logits(side);
                let matrix = self.place(Matrix::one(Role::Guide, x, y, flow));
                let target = Target::Guided { matrix, divergence: c.divergence };
                self.directions.push(Direction { side, logits, target, soft: mix * c.soft, relation: mix * lambda, hard, mix });
            }
            // The cross-entropy has no guide: it is counted once.
            hard = 0.0;
        }
    }

    fn text_based(&mut self, c: &TextBasedConfig) {
        for side in 0..2 {
            let base = if side == 0 { (Set::Image, Set::Text) } else { (Set::Text, Set::Image) };
            let text = if side == 0 { (Set::Category, Set::CategoryText) } else { (Set::CategoryText, Set::Category) };
            let mut logits = Matrix::one(Role::Logits, base.0, base.1, true);
            let mut labels = None;
            if c.alpha == 0.0 {
                // Whatever is blended, the label is the own pair: no category embeddings are asked for.
            } else if c.blend == Blend::Logits {
                logits.products[0].weight = 1.0 - c.alpha;
                // The frozen part has no gradient of its own, but the temperature stands before it too.
                let frozen = Product { left: text.0, right: text.1, weight: c.alpha, flow: c.tau.is_none() };
                logits = Matrix::new(Role::Logits, logits.products.into_iter().chain([frozen]).collect());
            } else {
                let clamp = c.blend == Blend::TargetsNormalized;
                labels = Some(Matrix::one(Role::Labels { clamp }, text.0, text.1, false));
            }
            if c.symmetrize {
                logits = logits.symmetrized();
                labels = labels.map(|m| m.symmetrized());
            }
            let logits = self.place(logits);
            let target = match labels {
                None => Target::Smoothed { alpha: 0.0 },
                Some(m) => {
                    let normalized = c.blend == Blend::TargetsNormalized;
                    Target::Labels { matrix: self.place(m), alpha: c.alpha, normalized }
                }
            };
            self.directions.push(Direction { side, logits, target, soft: 0.0, relation: 0.0, hard: 1.0, mix: 1.0 });
        }
    }
}
