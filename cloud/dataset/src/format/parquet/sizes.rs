//! How large rows are going to be, before they are written.

use arrow_array::cast::AsArray as _;
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_data::ByteView;
use arrow_schema::DataType;

use super::Rows;

/// For each row of a batch what it will take: of JSON no less than that, but for what is shorter than it is usually.
pub(super) fn of(batch: &RecordBatch, rows: Rows) -> Vec<u64> {
    let mut sizes = vec![0; batch.num_rows()];
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        add_name(field.name(), rows, &mut sizes);
        add(column, 0, rows, &mut sizes);
    }
    sizes
}

fn add_name(name: &str, rows: Rows, sizes: &mut [u64]) {
    if rows == Rows::Json {
        // Quotes, a colon and a comma.
        let bytes = name.len() as u64 + 4;
        sizes.iter_mut().for_each(|size| *size = size.saturating_add(bytes));
    }
}

fn add_each(sizes: &mut [u64], mut bytes: impl FnMut(usize) -> u64) {
    for (row, size) in sizes.iter_mut().enumerate() {
        *size = size.saturating_add(bytes(row));
    }
}

/// Adds what the values from `first` on take.
fn add(array: &dyn Array, first: usize, rows: Rows, sizes: &mut [u64]) {
    let length = |view: &u128| u64::from(ByteView::from(*view).length);
    let text = |bytes: u64| match rows {
        Rows::Json => bytes + 2,
        Rows::Arrow => bytes,
    };
    match array.data_type() {
        DataType::Utf8View => {
            let views = array.as_string_view().views();
            add_each(sizes, |row| views.get(first + row).map_or(0, |view| text(length(view))));
        }
        DataType::BinaryView => {
            let views = array.as_binary_view().views();
            let bytes = |bytes: u64| match rows {
                Rows::Json => bytes.div_ceil(3) * 4,
                Rows::Arrow => bytes,
            };
            add_each(sizes, |row| {
                views.get(first + row).map_or(0, |view| text(bytes(length(view))))
            });
        }
        DataType::FixedSizeBinary(bytes) => {
            let bytes = u64::try_from(*bytes).unwrap_or(0);
            add_each(sizes, |_| text(bytes));
        }
        DataType::Struct(_) => add_struct(array.as_struct(), first, rows, true, sizes),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let item = |first, sizes: &mut [u64]| add(list.values(), first, rows, sizes);
            add_list(list.value_offsets(), first, item, sizes);
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let entry =
                |first, sizes: &mut [u64]| add_struct(map.entries(), first, rows, false, sizes);
            add_list(map.value_offsets(), first, entry, sizes);
        }
        kind => {
            let bytes = match rows {
                // A digit and a comma.
                Rows::Json => 2,
                Rows::Arrow => kind.primitive_width().unwrap_or(1) as u64,
            };
            add_each(sizes, |_| bytes);
        }
    }
}

fn add_struct(parts: &StructArray, first: usize, rows: Rows, is_named: bool, sizes: &mut [u64]) {
    for (field, column) in parts.fields().iter().zip(parts.columns()) {
        if is_named {
            add_name(field.name(), rows, sizes);
        }
        add(column, first, rows, sizes);
    }
}

fn add_list(
    offsets: &[i32],
    first: usize,
    add_items: impl FnOnce(usize, &mut [u64]),
    sizes: &mut [u64],
) {
    let offset = |at: usize| offsets.get(at).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
    let (begin, end) = (offset(first), offset(first + sizes.len()));
    let mut items = vec![0; end.saturating_sub(begin)];
    add_items(begin, &mut items);
    add_each(sizes, |row| {
        let (from, to) = (offset(first + row) - begin, offset(first + row + 1) - begin);
        let items = items.get(from..to).unwrap_or_default();
        items.iter().fold(2 + items.len() as u64, |sum, item| sum.saturating_add(*item))
    });
}
