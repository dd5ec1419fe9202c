mod foreign;
mod releases;
mod unusual;
