//! Conversions of numbers with types of their own.

use sea_orm::{ColIdx, QueryResult, TryGetError, TryGetable, Value};

use crate::model::{ChannelPk, EpochMs, MessageId, Revision, Seq, Version};

macro_rules! stored_as_i64 {
    ($($number:ident),+) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                number.0.into()
            }
        }

        impl TryGetable for $number {
            fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
                i64::try_get_by(row, index).map(Self)
            }
        }
    )+};
}

stored_as_i64!(ChannelPk, EpochMs, MessageId, Revision, Seq, Version);
