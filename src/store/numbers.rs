//! Conversions of numbers with types of their own.

use sea_orm::{ColIdx, QueryResult, TryGetError, TryGetable, Value};

use crate::model::ChannelPk;

impl From<ChannelPk> for Value {
    fn from(pk: ChannelPk) -> Self {
        pk.0.into()
    }
}

impl TryGetable for ChannelPk {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        i64::try_get_by(row, index).map(Self)
    }
}
